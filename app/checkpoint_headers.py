"""An encoder's weights by the headers of their file alone: nothing is unpickled, no torch. `ml.weights` reads the tensors."""

import json
import math
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from app.errors import Invalid
from ml.spec import SparingFile

Format = Literal["safetensors", "torch"]
LONGEST_HEADER = 8 * 2**20  # bytes of a safetensors' JSON; a ResNet-50 needs 30 thousand
MOST_MEMBERS = 20_000  # of a zip, in which each tensor is one
LARGEST_DIRECTORY = 8 * 2**20  # bytes of a zip's, which names its members
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
ACCEPTED = "a safetensors file or what torch.save(encoder.state_dict(), file) writes is accepted"


def check(path: Path) -> Format:
    """What the file is. Raises Invalid, with what would be accepted, where it is neither."""
    with path.open("rb") as file:
        start = file.read(4)
        if start.startswith(b"PK\x03\x04"):
            _check_torch(path)
            return "torch"
        if start.startswith(b"\x80"):  # the opcode with which a pickle begins
            raise _refused(
                "the file is a pickle, as torch.save wrote them before torch 1.6; load it where you trust it, and save again"
            )
        _check_safetensors(file, path.stat().st_size)
        return "safetensors"


def _check_torch(path: Path) -> None:
    try:
        with SparingFile(path, LARGEST_DIRECTORY) as file, ZipFile(file) as archive:
            members = archive.infolist()
    except (BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise _refused(f"the file cannot be read as a zip: {error}") from None
    if len(members) > MOST_MEMBERS:
        raise _refused(f"the zip has {len(members)} members, and at most {MOST_MEMBERS} are read")
    names = [member.filename.partition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise _refused("the file is a TorchScript archive, which is a program")
    if names.count("data.pkl") != 1:
        raise _refused("the file is a zip without a data.pkl in its one folder, so torch.save did not write it")
    if len(set(names)) < len(names):
        raise _refused("the zip has several members of one name")
    if any(member.compress_type != ZIP_STORED or member.flag_bits & 1 for member in members):
        raise _refused("the zip's members are compressed or encrypted, as torch.save never writes them")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise _refused("the zip's members are larger together than the file, so they overlap or break off")


def _check_safetensors(file: IO[bytes], size: int) -> None:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise _refused("the file is neither a zip nor does it begin with the length of a safetensors header")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise _refused("the header of the file is no JSON, as a safetensors file has it") from None
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"} if isinstance(header, dict) else {}
    if not tensors:
        raise _refused("the header of the file names no tensors")
    for name, entry in tensors.items():
        if not _fits(entry, size - 8 - length):
            raise _refused(
                f"the header's entry for {name[:100]!r} does not have a dtype, a shape and data_offsets that fit the file"
            )


def _fits(entry: Any, room: int) -> bool:
    """Whether the tensor of a header's entry lies within so many bytes, and fills its place."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return False
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES or not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        return False
    begin, end = offsets
    return bool(len(shape) <= 16 and begin <= end <= room and end - begin == math.prod(shape) * BYTES[dtype])


def _counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _refused(message: str) -> Invalid:
    return Invalid.field("/file", f"{message}; {ACCEPTED}")
