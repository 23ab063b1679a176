"""The members of a zip archive, as far as weights need it: found, checked and bounded before anything is read.

`zipfile` would take an object of memory for every entry before it can be asked how many there are, reads members that
overlap, and looks for archives behind other data. Here an archive is what PyTorch and NumPy write: stored or deflated members
which fill a file from its first byte, each once and none on top of another.

References
----------
PKWARE, "APPNOTE.TXT, .ZIP File Format Specification", 6.3.10: 4.3.7 (local header), 4.3.12 to 4.3.16 (central directory),
4.5.3 (sizes of 64 bits).
"""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass

from striate.io.errors import Source, quoted

# Signatures of an archive's first member, and of an archive without any.
MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_MAX_MEMBERS = 200_000  # a network has thousands; 200 000 take 60 MB here
_CUT = "the file is damaged or cut off; fetch it again"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: where its bytes lie, and how many they become."""

    name: str
    start: int
    n_packed_bytes: int
    n_bytes: int
    is_deflated: bool
    checksum: int


class Archive:
    """The directory of a zip archive.

    Parameters
    ----------
    source : Source
        For the texts of errors.
    data : memoryview
        The whole file.

    Attributes
    ----------
    members : dict of str to Member

    Raises
    ------
    FileError
        A directory that breaks the format, lies outside the file or has more than 200 000 entries; members that are
        encrypted, doubled, overlapping, or compressed otherwise than by deflate; names that lead out of a folder.
    """

    def __init__(self, source: Source, data: memoryview) -> None:
        self._source = source
        self._data = data
        self.members: dict[str, Member] = {}
        n_entries, n_bytes, start = self._directory()
        spans = []
        position, stop = start, start + n_bytes
        for _ in range(n_entries):
            position, member, header = self._entry(position, stop, start)
            if member.name in self.members:
                source.refuse("every member once", f"{quoted(member.name)} twice", "such a file means two things")
            self.members[member.name] = member
            spans.append((header, member.start + member.n_packed_bytes))
        if position != stop:
            source.refuse(f"{n_entries} members in a directory of {n_bytes} bytes", f"{position - start} bytes", _CUT)
        spans.sort()
        for (_, end), (begin, _) in itertools.pairwise(spans):
            if begin < end:
                source.refuse("members that do not overlap", f"one at byte {begin} inside another", _CUT)

    def read(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a member; those of a stored one are the file's own.

        Raises
        ------
        FileError
            No member of that name, one of more than `max_bytes`, or one whose bytes do not match its size and checksum.
        """
        member = self.members.get(name)
        if member is None:
            self._source.refuse(f"a member {quoted(name)}", "none of that name", _CUT)
        if member.n_bytes > max_bytes:
            self._source.refuse(
                f"at most {max_bytes} bytes for {quoted(name)}",
                f"{member.n_bytes}",
                "a file of this size has no use for so many",
            )
        content = self._data[member.start : member.start + member.n_packed_bytes]
        if member.is_deflated:
            content = self._inflated(member, content)
        # PyTorch writes a checksum of 0 where the user switches checksums off.
        if member.checksum and zlib.crc32(content) != member.checksum:
            self._source.refuse(f"bytes of {quoted(name)} that match their checksum", "others", _CUT)
        return content

    def _inflated(self, member: Member, packed: memoryview) -> memoryview:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = stream.decompress(packed, member.n_bytes + 1)
        except zlib.error as error:
            self._source.refuse(f"deflated bytes as {quoted(member.name)}", str(error), _CUT, error)
        if len(content) != member.n_bytes or not stream.eof or stream.unused_data:
            found = f"{'more' if len(content) > member.n_bytes or not stream.eof else len(content)}"
            self._source.refuse(f"{member.n_bytes} bytes as {quoted(member.name)}", found, _CUT)
        return memoryview(content)

    def _directory(self) -> tuple[int, int, int]:
        """Return number of entries, bytes and start of the central directory."""
        data = self._data
        n = len(data)
        for end in range(n - _END.size, max(-1, n - _END.size - 65536), -1):
            if (
                bytes(data[end : end + 4]) == MAGIC[1]
                and end + _END.size + struct.unpack_from("<H", data, end + 20)[0] == n
            ):
                break
        else:
            self._source.refuse("the end of a zip archive", f"{n} bytes without one", _CUT)
        _, disk, first_disk, here, n_entries, n_bytes, start, _ = _END.unpack_from(data, end)
        locator = end - _LOCATOR64.size
        if locator >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
            _, _, end, _ = _LOCATOR64.unpack_from(data, locator)
            if end + _END64.size != locator or bytes(data[end : end + 4]) != b"PK\x06\x06":
                self._source.refuse("the directory's end record in front of its locator", f"byte {end}", _CUT)
            _, _, _, _, disk, first_disk, here, n_entries, n_bytes, start = _END64.unpack_from(data, end)
        if disk or first_disk or here != n_entries:
            self._source.refuse("an archive in one part", "one of several", "join its parts first")
        if start + n_bytes != end:
            self._source.refuse(
                f"a directory that ends at byte {end}", f"{n_bytes} bytes of directory at byte {start}", _CUT
            )
        if n_entries > _MAX_MEMBERS or n_entries * _ENTRY.size > n_bytes:
            most = min(_MAX_MEMBERS, n_bytes // _ENTRY.size)
            self._source.refuse(f"at most {most} members", f"{n_entries}", "no set of weights needs so many")
        return n_entries, n_bytes, start

    def _entry(self, position: int, stop: int, data_end: int) -> tuple[int, Member, int]:
        """Read the entry at `position`; return the next one's place, the member, and the place of its own header."""
        data = self._data
        source = self._source
        if position + _ENTRY.size > stop or bytes(data[position : position + 4]) != b"PK\x01\x02":
            source.refuse(f"a member's entry at byte {position}", "other bytes", _CUT)
        fields = _ENTRY.unpack_from(data, position)
        flags, method, checksum, packed, size = fields[3], fields[4], *fields[7:10]
        n_name, n_extra, n_comment, header = *fields[10:13], fields[16]
        begin = position + _ENTRY.size
        following = begin + n_name + n_extra + n_comment
        if following > stop:
            source.refuse(f"an entry of {following - position} bytes at byte {position}", "the directory's end", _CUT)
        name = self._name(bytes(data[begin : begin + n_name]))
        size, packed, header = self._wide(name, data[begin + n_name : begin + n_name + n_extra], size, packed, header)
        if flags & 0x2041:
            source.refuse("members that anyone can read", f"{quoted(name)} encrypted", "decrypt the archive first")
        if method not in (_STORED, _DEFLATED):
            source.refuse(
                "members stored or deflated", f"{quoted(name)} packed by method {method}", "save the file again"
            )
        if header + _LOCAL.size > data_end or bytes(data[header : header + 4]) != MAGIC[0]:
            source.refuse(f"{quoted(name)} at byte {header}", "no member there", _CUT)
        local = _LOCAL.unpack_from(data, header)
        first = header + _LOCAL.size
        start = first + local[9] + local[10]
        if start + packed > data_end:
            source.refuse(
                f"{packed} bytes of {quoted(name)} from byte {start}", f"{max(0, data_end - start)} bytes", _CUT
            )
        if data[first : first + local[9]] != data[begin : begin + n_name] or local[3] != method:
            source.refuse(f"the header of {quoted(name)} at byte {header}", "another one", _CUT)
        if method == _STORED and packed != size:
            source.refuse(f"{size} stored bytes as {quoted(name)}", f"{packed}", _CUT)
        return following, Member(name, start, packed, size, method == _DEFLATED, checksum), header

    def _name(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError as error:
            self._source.refuse("names of members in UTF-8", quoted(raw), "save the file again", error)
        if not is_plain_name(name):
            self._source.refuse("names of members inside the archive", quoted(name), "do not trust this file")
        return name

    def _wide(self, name: str, extra: memoryview, size: int, packed: int, header: int) -> tuple[int, int, int]:
        """Return size, packed size and place of the header, from the field of 64-bit numbers where they stand there."""
        narrow = [size, packed, header]
        wanted = [i for i, value in enumerate(narrow) if value == 0xFFFFFFFF]
        position = 0
        while wanted and position + 4 <= len(extra):
            kind, n_bytes = struct.unpack_from("<2H", extra, position)
            position += 4
            if kind == 1:
                if n_bytes < 8 * len(wanted) or position + n_bytes > len(extra):
                    break
                for k, i in enumerate(wanted):
                    (narrow[i],) = struct.unpack_from("<Q", extra, position + 8 * k)
                wanted = []
            position += n_bytes
        if wanted:
            self._source.refuse(f"sizes of 64 bits for {quoted(name)}", "none", _CUT)
        return narrow[0], narrow[1], narrow[2]


def is_plain_name(name: str) -> bool:
    """Return whether a member's name stays inside the folder into which some tool may unpack it."""
    return (
        bool(name)
        and "\0" not in name
        and "\\" not in name
        and not name.startswith("/")
        and ".." not in name.split("/")
    )
