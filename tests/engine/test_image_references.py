import pytest

from ccat_ops_db.definitions.images import ImageReference, ImageSource

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "source", "asked"),
    [
        ("chai.sif", ImageSource.FILE, "chai.sif"),
        ("/images/a:b/chai.sif", ImageSource.FILE, "/images/a:b/chai.sif"),
        ("docker://chai", ImageSource.DOCKER, f"docker://chai@{DIGEST}"),
        ("DOCKER://chai", ImageSource.DOCKER, f"docker://chai@{DIGEST}"),
        ("docker://quay.example:5000/ccat/chai", ImageSource.DOCKER, f"docker://quay.example:5000/ccat/chai@{DIGEST}"),
        ("docker://quay.example/ccat/chai:1.2-rc.1", ImageSource.DOCKER, f"docker://quay.example/ccat/chai@{DIGEST}"),
        (f"docker://quay.example/chai:1@{DIGEST}", ImageSource.DOCKER, f"docker://quay.example/chai@{DIGEST}"),
        ("oras://quay.example/chai:1", ImageSource.ORAS, "oras://quay.example/chai:1"),
        ("library://ccat/chai:1", ImageSource.LIBRARY, "library://ccat/chai:1"),
        ("https://quay.example/chai.sif", ImageSource.HTTPS, "https://quay.example/chai.sif"),
    ],
)
def test_what_is_asked_for_is_what_was_released_and_not_what_a_tag_means(
    text: str, source: ImageSource, asked: str
) -> None:
    reference = ImageReference.parse(text)
    reference.confirm(DIGEST)
    assert reference.source is source
    assert reference.exactly(DIGEST) == asked


WRONG = ["docker://", "docker:chai", "docker-daemon:chai", "docker://a b", "file:///chai.sif", "docker:///chai"]


@pytest.mark.parametrize("text", [*WRONG, "docker://chai@sha256:abc", f"docker://chai@{DIGEST}@{DIGEST}"])
def test_what_brings_no_image_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"image|digest"):
        ImageReference.parse(text)
