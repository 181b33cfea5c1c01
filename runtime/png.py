"""Pictures as PNG files that say how they were made, to this tool, to other people's tools and to archives.

Three text chunks (W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 11.3.3):

    XML:com.adobe.xmp   XMP with IPTC's digital source type, trainedAlgorithmicMedia: a generative model made this.
                        IPTC Photo Metadata Standard 2023.1 (the same in 2025.1), IPTC Extension, "Digital Source
                        Type"; Adobe, "XMP Specification Part 3: Storage in Files", 1.1.5 "PNG" (uncompressed iTXt).
    parameters          what people's tools read: the text that AUTOMATIC1111's stable-diffusion-webui writes.
    sdxl-trt            `Parameters` as JSON. It is read first, since `parameters` cannot hold everything.

The `parameters` text is the prompt, a line "Negative prompt: …" unless that is empty, and one line of settings,
"Steps: 30, Sampler: Euler, …". Its readers (webui's modules/infotext_utils.py, `parse_generation_parameters`) take the
space off both ends of every line, take a prompt's own line that starts with "Negative prompt:" as the start of the
negative prompt, and see a line of fewer than three settings as part of the prompt. All values come back as text.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdxl_trt.decode import decode, loads
from sdxl_trt.errors import UsageError

COMPRESSION = 3  # of 9: against zlib's own 6, a third to a half of the time is saved, and files are a tenth larger
TEXT_LIMIT = 2**20  # bytes of one text, packed or not, at most
OWN_KEYWORD, A1111_KEYWORD, XMP_KEYWORD = "sdxl-trt", "parameters", "XML:com.adobe.xmp"

_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia\
</Iptc4xmpExt:DigitalSourceType>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""

_NEGATIVE = "Negative prompt:"
_KEY = r"\w[\w \-/]+"
# Finds what webui's `re_param_code` finds, whose time is quadratic on a long line without colons: a key is the end of
# a run of its characters, so only the start of a run is tried.
_SETTING = re.compile(r'(?<![\w \-/])[ \-/]*+(\w[\w \-/]++):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD_ROOM = 128  # bytes: a keyword has at most 79, then come up to five of flags and separators


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a picture was made from."""

    prompt: str
    negative_prompt: str = ""
    settings: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    """By webui's names, in the order to write them: Steps, Sampler, CFG scale, Seed, Size, Model, Model hash, …,
    Version. None is for a setting that `parameters` leaves out."""


def format_parameters(prompt: str, negative: str, settings: Mapping[str, object]) -> str:
    """The text of a `parameters` chunk.

    Raises:
        UsageError: a setting's name is not one that readers recognise.
    """
    line = ", ".join(f"{_checked_key(key)}: {_quote(value)}" for key, value in settings.items() if value is not None)
    negative_line = f"\n{_NEGATIVE} {negative}" if negative else ""
    return f"{prompt}{negative_line}\n{line}".strip()


def parse_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, settings) of a `parameters` chunk, as webui reads it."""
    *lines, last = text.strip().split("\n")
    found = _SETTING.findall(last)
    if len(found) < 3:
        lines, found = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            part = negative
        part.append(line.removeprefix(_NEGATIVE).strip() if part is negative else line)
    settings = {key: _unquote(value) for key, value in found}
    return "\n".join(prompt), "\n".join(negative).lstrip("\n"), settings


def encode_png(image: NDArray[np.uint8], parameters: Parameters) -> bytes:
    """A PNG file, the same bytes for the same input.

    Args:
        image: uint8 `[height, width, 3]`, sRGB.
        parameters: written into the file's text chunks.

    Raises:
        UsageError: another kind of array; or parameters over `TEXT_LIMIT`, not Unicode, not finite or badly named.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(
            "this is not a picture",
            got=f"{image.dtype} {list(image.shape)}",
            expected="uint8 [height, width, 3]",
            fix="scale to 0…255 and round first",
        )
    text = format_parameters(parameters.prompt, parameters.negative_prompt, parameters.settings)
    text = text.replace("\0", "\ufffd")  # no PNG text holds NUL
    info = PngInfo()
    info.add_itxt(XMP_KEYWORD, _XMP)
    info.add_text(A1111_KEYWORD, _writable(text))  # tEXt where Latin-1 is enough, as webui writes it, else iTXt
    info.add_itxt(OWN_KEYWORD, _writable(_to_json(parameters)))
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", pnginfo=info, compress_level=COMPRESSION)
    return file.getvalue()


def read_png(png: Path | bytes) -> Parameters:
    """What a picture was made from: exact for our own files; of others' what `parameters` says, all values as text.

    Pixels are not decoded, and memory stays within a few `TEXT_LIMIT` whatever the file says.

    Args:
        png: a file, or what is in one.

    Raises:
        UsageError: no PNG file, a broken one, one with larger texts, or one without parameters.
    """
    try:
        with png.open("rb") if isinstance(png, Path) else io.BytesIO(png) as file:
            texts = _read_texts(file)
        if OWN_KEYWORD in texts:
            return decode(Parameters, loads(texts[OWN_KEYWORD].encode(), max_bytes=TEXT_LIMIT), OWN_KEYWORD)
        if A1111_KEYWORD not in texts:
            raise ValueError(f"a PNG file without a text {OWN_KEYWORD!r} or {A1111_KEYWORD!r}")
    except (OSError, ValueError, zlib.error) as error:
        raise UsageError(
            f"cannot read how {png if isinstance(png, Path) else 'the picture'} was made",
            got=getattr(error, "strerror", None) or str(error),
            expected=f"a whole PNG file as it was written, with texts of at most {TEXT_LIMIT} bytes",
            fix="take the first copy of the file; many programs and sites remove texts from pictures",
        ) from error
    prompt, negative, settings = parse_parameters(texts[A1111_KEYWORD])
    return Parameters(prompt=prompt, negative_prompt=negative, settings={**settings})


def _checked_key(key: str) -> str:
    if not re.fullmatch(_KEY, key):
        names = "names of two or more letters, digits, '_', spaces, '-' and '/', of which the first is no sign or space"
        raise _unwritable(f"a setting named {key!r}", names)
    return key


def _quote(value: object) -> str:
    """As webui's `quote`; and values that its reader would otherwise change are quoted too, which it can read."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    changed = text != text.strip() or not text or '"' in (text[0], text[-1])
    return json.dumps(text, ensure_ascii=False) if changed or any(sign in text for sign in ",:\n") else text


def _unquote(text: str) -> str:
    if text[:1] == text[-1:] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            pass  # quotes that were part of the value
    return text


def _to_json(parameters: Parameters) -> str:
    try:
        return json.dumps(dataclasses.asdict(parameters), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _unwritable(str(error), "texts, booleans and finite numbers") from error


def _writable(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _unwritable(f"half a surrogate pair, {text[error.start]!r}", "text that has a UTF-8 form") from error
    if size > TEXT_LIMIT:
        raise _unwritable(f"{size} bytes", f"at most {TEXT_LIMIT} bytes")
    return text


def _unwritable(got: str, expected: str) -> UsageError:
    what, fix = "the picture's parameters cannot be written", "correct or shorten the prompt and the settings"
    return UsageError(what, got=got, expected=expected, fix=fix)


def _read_texts(file: BinaryIO) -> dict[str, str]:
    """The texts that tell parameters, by keyword; the last of a keyword counts, as in Pillow. All else is skipped."""
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise ValueError("it does not start as a PNG file does")
    texts, kind = {}, b""
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends too early")
        length, kind = struct.unpack(">I4s", head)
        start = file.read(min(length, _KEYWORD_ROOM)) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
        keyword = start.partition(b"\0")[0].decode("latin-1")
        if keyword in (OWN_KEYWORD, A1111_KEYWORD):
            texts[keyword] = _text(kind, _rest_of_chunk(file, kind, start, length))
        else:
            file.seek(length - len(start) + 4, io.SEEK_CUR)
    return texts


def _rest_of_chunk(file: BinaryIO, kind: bytes, start: bytes, length: int) -> bytes:
    """A text chunk's data after its keyword, checked."""
    if length > TEXT_LIMIT + _KEYWORD_ROOM:
        raise ValueError(f"a text of {length} bytes")
    data = start + file.read(length - len(start))
    if file.read(4) != struct.pack(">I", zlib.crc32(kind + data)):
        raise ValueError("a text is cut short or its checksum is wrong")
    return data.partition(b"\0")[2]


def _text(kind: bytes, body: bytes) -> str:
    """The text of a chunk from what follows its keyword."""
    if kind == b"tEXt":
        return body.decode("latin-1")
    if kind == b"zTXt":
        return _inflate(body[:1], body[1:]).decode("latin-1")
    flag, method, text = body[:1], body[1:2], body[2:].split(b"\0", 2)[-1]  # between: language, translated keyword
    return (_inflate(method, text) if flag == b"\1" else text).decode()


def _inflate(method: bytes, data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, TEXT_LIMIT + 1)
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"a text that unpacks to more than {TEXT_LIMIT} bytes")
    if method != b"\0" or not inflater.eof:
        raise ValueError("a text that cannot be unpacked")
    return text
