import pytest

from napari_kdseg.errors import OutputError
from napari_kdseg.masks.disk import WriteLock
from napari_kdseg.masks.writing.journal import Journal, read_journal


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append({(0, 1): {}, (12, 34): {"wrong": [1, 2]}})
    journal.close()
    assert read_journal(path).done == {(0, 1): {}, (12, 34): {"wrong": [1, 2]}}


def test_a_torn_line_does_not_count_and_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = '{"tile": [1, 2]}\n{"tile": [12, 345], "n": 6}\n'
    for length in range(len(whole) + 1):
        path.write_text(whole[:length])
        journal = Journal(path)
        journal.append({(7, 7): {}})
        journal.close()
        done = read_journal(path).done
        assert (7, 7) in done
        assert set(done) <= {(1, 2), (12, 345), (7, 7)}
        assert ((12, 345) in done) == (length >= len(whole) - 1)


def test_one_writer_at_a_time(tmp_path):
    lock = WriteLock(tmp_path / "student.lock")
    with pytest.raises(OutputError, match="Another job is writing"):
        WriteLock(tmp_path / "student.lock")
    lock.close()
    WriteLock(tmp_path / "student.lock").close()
