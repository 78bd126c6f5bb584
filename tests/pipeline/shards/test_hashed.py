import hashlib

import pytest

from pipeline.shards.hashed import HashedInput


def test_a_file_is_read_and_hashed_and_never_backwards(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with HashedInput(str(path)) as file:
        assert file.read(3) == b"012"
        with pytest.raises(ValueError, match="-1 bytes are asked for"):
            file.read(-1)
        assert file.read(20) == b"3456789"
        assert file.sha256 == hashlib.sha256(b"0123456789").hexdigest()
