from dataclasses import replace
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.plan.trees import TreeFile, tree_checksum
from ccat_ops_db.states import DataProductType
from ccat_workflow_manager.execution.products import TYPE_BY_DIRECTORY, product_type

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in {".", ".."}
)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: PurePosixPath(*parts))
trees = st.lists(
    st.builds(TreeFile, paths.map(str), st.sampled_from([0o444, 0o555]), st.sampled_from(["aa", "bb"])),
    unique_by=lambda file: file.path,
    max_size=6,
)


@given(trees)
def test_the_checksum_of_a_tree_does_not_depend_on_the_order(tree: list[TreeFile]) -> None:
    assert tree_checksum(reversed(tree)) == tree_checksum(tree)


@given(trees, trees)
def test_trees_have_the_same_checksum_only_if_they_are_the_same(one: list[TreeFile], other: list[TreeFile]) -> None:
    assert (tree_checksum(one) == tree_checksum(other)) == (set(one) == set(other))


@given(trees.filter(bool))
def test_path_permissions_and_content_all_count(tree: list[TreeFile]) -> None:
    first, *rest = tree
    changes = [
        replace(first, path=first.path + "x"),
        replace(first, mode=first.mode ^ 0o111),
        replace(first, sha256=first.sha256 + "c"),
    ]
    assert all(tree_checksum([changed, *rest]) != tree_checksum(tree) for changed in changes)


@given(paths)
def test_an_intermediate_step_makes_intermediate_products_only(path: PurePosixPath) -> None:
    assert product_type(path, is_final=False) is DataProductType.INTERMEDIATE


@given(st.sampled_from(sorted(TYPE_BY_DIRECTORY)), paths)
def test_the_first_directory_decides_alone(directory: str, path: PurePosixPath) -> None:
    assert product_type(PurePosixPath(directory) / path, is_final=True) is TYPE_BY_DIRECTORY[directory]
    assert product_type(PurePosixPath("other", directory) / path, is_final=True) is DataProductType.INTERMEDIATE
    assert product_type(PurePosixPath(directory), is_final=True) is DataProductType.INTERMEDIATE
