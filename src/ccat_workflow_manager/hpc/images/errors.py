from ccat_ops_db.errors import CcatError


class ImageUnusable(CcatError):
    """An image cannot be run as it is: what names it, or what made it, has to be mended."""

    code = "image_unusable"

    def __init__(self, image: str, *, problem: str, remedy: str) -> None:
        super().__init__(f"the image {image} cannot be used: {problem}; {remedy}")
        self.image = image


class ImageNotFetched(CcatError):
    """An image could not be brought here this time."""

    code = "image_not_fetched"
    transient = True

    def __init__(self, image: str, problem: str) -> None:
        super().__init__(f"the image {image} could not be fetched: {problem}; it is tried again")
        self.image = image


class ImageAwaited(CcatError):
    """An image is on its way."""

    code = "image_awaited"
    transient = True

    def __init__(self, image: str) -> None:
        super().__init__(f"its image {image} is being fetched")
        self.image = image
