"""What BPE and unigram share: SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226), made exact.

SentencePiece writes a space as the sign U+2581, so a U+2581 in the text would come back as a space. Here that sign is
spelt in bytes without asking SentencePiece, and U+2581 is always a piece, lest a space be spelt as its three bytes
where the training text had none. Line ends are spelt in bytes too: SentencePiece never sees one, neither in training
nor after.

Text goes to SentencePiece word by word. A piece has spaces only in front, so no piece crosses from one word into the
next and the tokens are those of the whole text; but a word is worked out once however often it occurs (four times as
fast on English), and a long line cannot wear out the float32 sums of the unigram model.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from jaxgpt.data.tokenizers.base import FIRST_PIECE, Tokenizer, TokenizerConfig, spell_bytes
from jaxgpt.errors import DataError

_SPACE = "\u2581"  # what SentencePiece writes for a space
_MODEL = "tokenizer.model"
_THREADS = 4  # fixed, whatever the machine: the scores of a unigram model depend on it


@dataclasses.dataclass(frozen=True)
class SentencePieceConfig(TokenizerConfig):
    """Fields of both kinds; not a kind itself."""

    vocab_size: int = 1024  # with the separator and the 256 bytes
    character_coverage: float = 0.9995  # share of the training text's characters that get a piece; the rest is bytes

    model_type: ClassVar[str]
    tokenizer_class: ClassVar[type[SentencePieceTokenizer]]

    def __post_init__(self) -> None:
        if self.vocab_size < FIRST_PIECE + 1:
            raise ValueError(
                f"vocab_size: must be at least {FIRST_PIECE + 1} (separator, 256 bytes, space), got {self.vocab_size}"
            )
        if not 0.9 <= self.character_coverage <= 1:
            raise ValueError(f"character_coverage: must be from 0.9 to 1, got {self.character_coverage}")

    def known_vocab_size(self) -> int:
        return self.vocab_size

    def train(self, texts: Iterable[str]) -> Tokenizer:
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(texts),
                model_writer=model,
                model_type=self.model_type,
                vocab_size=self.vocab_size,
                character_coverage=self.character_coverage,
                required_chars=_SPACE,
                byte_fallback=True,
                # With byte fallback nothing is unknown, so the piece that SentencePiece insists on is the separator.
                unk_id=0,
                unk_piece="<separator>",
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                max_sentence_length=1 << 30,
                num_threads=_THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise self._explained(str(error)) from None
        return self.tokenizer_class.of_model(model.getvalue())

    def _explained(self, message: str) -> DataError:
        """SentencePiece's complaint as a way out."""
        if high := re.search(r"too high \(\d+\).*<= (\d+)", message):
            possible = f"this training text yields at most {high[1]}; set data.tokenizer.vocab_size={high[1]} or less"
        elif low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            possible = f"its characters alone need {low[1]}; set data.tokenizer.vocab_size={low[1]} or more"
        elif "sentences_.empty()" in message:
            return DataError(f"data.tokenizer: the training text is empty, so there is no {self.model_type} to learn")
        else:
            possible = f"SentencePiece says: {' '.join(message.split())}"
        return DataError(f"data.tokenizer: no {self.model_type} vocabulary of {self.vocab_size} tokens; {possible}")

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        try:
            return cls.tokenizer_class.of_model((directory / _MODEL).read_bytes())
        except OSError as error:
            raise DataError(f"{directory / _MODEL}: cannot be read ({error.strerror})") from None
        except RuntimeError:
            raise DataError(f"{directory / _MODEL}: the saved tokenizer is damaged") from None

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"sentencepiece": importlib.metadata.version("sentencepiece")}


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Lines that are not empty."""
    for text in texts:
        for line in text.replace(_SPACE, " ").split("\n"):
            if line:
                yield line


class SentencePieceTokenizer(Tokenizer):
    """Pieces learned by SentencePiece, with bytes for what they do not cover."""

    words = re.compile(rf" *[^ \n{_SPACE}]+| +|\n|{_SPACE}")

    def __init__(self, pieces: Sequence[str], processor: Any, model: bytes):
        super().__init__(pieces)
        self._processor = processor
        self._model = model

    @classmethod
    def of_model(cls, model: bytes) -> SentencePieceTokenizer:
        """The tokenizer of a serialized SentencePiece model. Raises RuntimeError where it is none."""
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
        return cls([piece.replace(_SPACE, " ") for piece in pieces[FIRST_PIECE:]], processor, model)

    def _write(self, directory: Path) -> None:
        (directory / _MODEL).write_bytes(self._model)
        super()._write(directory)

    def _spell(self, words: list[str]) -> Iterable[Sequence[int]]:
        outside = {"\n", _SPACE}
        inside = [word for word in words if word not in outside]
        spelt = iter(self._processor.encode(inside))
        for word in words:
            yield spell_bytes(word) if word in outside else next(spelt)
