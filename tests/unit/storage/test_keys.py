"""Keys are formed and parsed in one place."""

import pytest

from latewood.storage import keys


def test_keys_have_the_forms_that_the_format_names() -> None:
    assert keys.STORE == "store.json"
    assert keys.vocabulary_chunk(12, 3) == "vocabulary/12/00000003.arrow"
    assert keys.unused(7, "ab12") == "vocabulary/unused/0000000007-ab12.json"
    assert keys.manifest(7) == "manifests/0000000007.json"
    assert keys.shard(7, "ab12", 15) == "generations/0000000007/ab12/shard-00015.stripes"


def test_parsing_is_the_inverse() -> None:
    assert keys.parse_vocabulary_chunk(keys.vocabulary_chunk(12, 3)) == (12, 3)
    assert keys.parse_unused(keys.unused(7, "ab12")) == (7, "ab12")
    assert keys.parse_manifest(keys.manifest(10**9)) == 10**9
    assert keys.parse_attempt_file(keys.shard(7, "ab12", 15)) == (7, "ab12")
    assert keys.parse_attempt_file("generations/0000000007/ab12/notes/x.txt") == (7, "ab12")


def test_other_keys_are_not_parsed() -> None:
    assert keys.parse_vocabulary_chunk("vocabulary/12/3.arrow") is None
    assert keys.parse_unused("vocabulary/unused/7-ab12.json") is None
    assert keys.parse_manifest("manifests/0000000007.json.bak") is None
    assert keys.parse_attempt_file("generations/README") is None


def test_keys_sort_as_what_they_number() -> None:
    numbers = [0, 1, 9, 10, 99_999, 100_000]
    assert sorted(map(keys.manifest, numbers)) == list(map(keys.manifest, numbers))


@pytest.mark.parametrize("prefix", ["..", "a//", "/", "a/../b", ".unfinished"])
def test_a_prefix_is_a_folder_inside(prefix: str) -> None:
    with pytest.raises(ValueError):
        keys.check_prefix(prefix)
