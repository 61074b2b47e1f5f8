"""Text encoders: from a sentence to one vector per token, and one for the whole.

Three encoders behind one protocol: `MiniClip`, the CLIP that this repository trains and ships; `HubTextEncoder`, any
CLIP, T5 or sentence encoder of `transformers`; `WordEncoder`, a closed vocabulary trained together with a generator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.common import TextEmbedding, check_choice, check_int, pick_device
from minidiff.data.pixels import to_float

PAD, BOS, EOS = 0, 1, 3  # token 2 is <unk>; CLIP's code in transformers treats an end token of 2 specially


class TextEncoder(Protocol):
    """Anything that turns prompts into a `TextEmbedding` with tokens of size dim and sentences of size pooled_dim.

    If it also has cut(prompt), the end of a prompt that it does not read, a pipeline warns of that.
    """

    dim: int
    pooled_dim: int

    def __call__(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode B prompts; shorter ones are padded, and the mask says where."""
        ...


def as_list(words: Iterable[str], name: str = "prompts") -> list[str]:
    """Prompts, or other words, as a list; raises ValueError for a single string, which is a sequence of letters."""
    if isinstance(words, str):
        raise ValueError(f"`{name}` must be a list of strings; got one string {words[:80]!r}: write [{name[:-1]}].")
    return list(words)


def unit_rms(x: Tensor) -> Tensor:
    """Scale vectors to root-mean-square 1, the size networks like: direction is all a CLIP embedding means."""
    return F.normalize(x.float(), dim=-1) * x.shape[-1] ** 0.5


@dataclass(frozen=True)
class MiniClipConfig:
    """The shape of the bundled CLIP: a causal text transformer and a vision transformer that meet in `dim`."""

    dim: int = 128
    context: int = 40
    vocabulary: int = 4096
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    image_size: int = 64
    image_patch: int = 8
    image_width: int = 144
    image_layers: int = 4
    image_heads: int = 6
    dropout: float = 0.1


class MiniClip(nn.Module):
    """A small CLIP (Radford et al. 2021): two towers whose outputs agree when a text describes a picture.

    It is a `transformers.CLIPModel` of our size with our own byte-pair tokenizer. tokenizer: a
    `tokenizers.Tokenizer`, see `minidiff.clip.train_tokenizer`.
    """

    def __init__(self, config: MiniClipConfig, tokenizer: Any):
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        tokenizer.encode_special_tokens = True  # who types "<eos>" means these five letters
        self.dim, self.pooled_dim = config.text_width, config.dim
        text = {
            "vocab_size": config.vocabulary,
            "hidden_size": config.text_width,
            "intermediate_size": 4 * config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "max_position_embeddings": config.context,
            "attention_dropout": config.dropout,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        }
        vision = {
            "hidden_size": config.image_width,
            "intermediate_size": 4 * config.image_width,
            "num_hidden_layers": config.image_layers,
            "num_attention_heads": config.image_heads,
            "image_size": config.image_size,
            "patch_size": config.image_patch,
            "attention_dropout": config.dropout,
        }
        self.model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.dim))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.logit_scale.device

    def tokenize(self, prompts: Sequence[str], full: bool = False) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) and their mask: begin, the words' pieces, end, padding. What is too long is cut.

        L is that of the longest prompt, or the whole context where every batch must be as wide.
        """
        most = self.config.context - 2
        even = [_evenly(prompt) for prompt in as_list(prompts)]
        encoded = self.tokenizer.encode_batch(even, add_special_tokens=False)
        rows = [[BOS, *encoding.ids[:most], EOS] for encoding in encoded]
        length = self.config.context if full else max(map(len, rows))
        ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
        return ids, ids != PAD

    def cut(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the context, "" if all of it does."""
        return self.tokenizer.decode(self._pieces(prompt)[self.config.context - 2 :]).strip()

    def words(self, prompt: str) -> list[str]:
        """The tokens of a prompt as text, in the order of the token states (begin and end included)."""
        pieces = self._pieces(prompt)[: self.config.context - 2]
        return ["<begin>", *(self.tokenizer.decode([piece]).strip() for piece in pieces), "<end>"]

    def _pieces(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(_evenly(prompt), add_special_tokens=False).ids

    def encode_ids(self, ids: Tensor, mask: Tensor) -> TextEmbedding:
        """Encode token ids (B, L) with their mask (B, L)."""
        # Without the mask: no word sees the padding, which comes last, and transformers would ask whether there is
        # any, which waits for a GPU at every step.
        out = self.model.text_model(input_ids=ids.long())
        pooled, tokens = self.model.text_projection(out.pooler_output), out.last_hidden_state * mask[..., None]
        return TextEmbedding(tokens.float(), mask, unit_rms(pooled))

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts: tokens (B, L, text_width), mask (B, L), pooled (B, dim)."""
        ids, mask = (part.to(self.device) for part in self.tokenize(prompts))
        return self.encode_ids(ids, mask)

    def encode_image(self, pictures: Tensor) -> Tensor:
        """CLIP image embeddings (B, dim), root-mean-square 1, of pictures (B, 3, H, W), uint8 or in [-1, 1]."""
        size, pictures = self.config.image_size, to_float(pictures)
        if pictures.shape[-2:] != (size, size):
            pictures = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
        out = self.model.vision_model(pixel_values=pictures)
        return unit_rms(self.model.visual_projection(out.pooler_output))

    def settings(self) -> dict[str, Any]:
        """The configuration as plain values, for a checkpoint's JSON."""
        return asdict(self.config)


def _evenly(prompt: str) -> str:
    """Single spaces between words and none around, as in every caption; others would be tokens of their own."""
    if not isinstance(prompt, str):
        raise ValueError(f"`prompts` must be strings; got {type(prompt).__name__}.")
    return " ".join(prompt.split())


class HubTextEncoder:
    """Any text encoder of `transformers`, by hub name or folder: CLIP, T5, or a sentence encoder (BERT family).

    CLIP's pooled vector is its projected text embedding; the others' is the mean of their token states. max_length:
    tokens kept of a prompt, 3 to 100,000. Raises ValueError for another number or device, and where nothing of that
    name can be loaded.
    """

    def __init__(self, name: str, *, max_length: int = 77, device: str | torch.device = "cpu"):
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel
        from transformers import AutoModel as Auto

        check_int("max_length", max_length, 3, 100_000)
        device = pick_device(device)
        try:
            config = AutoConfig.from_pretrained(name)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.is_clip = config.model_type in ("clip", "clip_text_model")
            t5 = "t5" in config.model_type
            kind = CLIPTextModelWithProjection if self.is_clip else T5EncoderModel if t5 else Auto
            self.model = kind.from_pretrained(name, use_safetensors=True).eval().to(device)
        except (OSError, ValueError) as error:
            said = f"`name` must be a text encoder of the Hugging Face hub or a folder with one; {name!r} could not"
            raise ValueError(f"{said} be loaded ({str(error).splitlines()[0]})") from error
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.name, self.max_length = name, min(max_length, self.tokenizer.model_max_length)
        self.dim = self.model.config.hidden_size
        self.pooled_dim = self.model.config.projection_dim if self.is_clip else self.dim

    def cut(self, prompt: str) -> str:
        """The end of the prompt that does not fit into max_length, "" if all of it does."""
        pieces = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        most = self.max_length - self.tokenizer.num_special_tokens_to_add()
        return str(self.tokenizer.decode(pieces[most:])).strip()

    def settings(self) -> dict[str, Any]:
        """What makes the same encoder again, for a checkpoint's JSON: its name and max_length."""
        return {"name": self.name, "max_length": self.max_length}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts: tokens (B, L, dim), mask (B, L), pooled (B, pooled_dim)."""
        how = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        batch = self.tokenizer(as_list(prompts), **how).to(self.model.device)
        out, mask = self.model(**batch), batch["attention_mask"].bool()
        tokens = out.last_hidden_state * mask[..., None]
        pooled = out.text_embeds if self.is_clip else tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return TextEmbedding(tokens.float(), mask, unit_rms(pooled))


class WordEncoder(nn.Module):
    """A transformer over a closed vocabulary, trained together with the generator it serves (`JointDenoising`).

    For the shapes, whose language ("left of", "two") no CLIP of emoji knows. Calling it gives no gradients, which
    `encode_ids` does. vocabulary: the words, the first being the padding. Raises ValueError for a dim that does not
    split into heads and, when called, for an unknown word.
    """

    def __init__(self, vocabulary: Sequence[str], context: int, dim: int = 96, layers: int = 2, heads: int = 4):
        super().__init__()
        if check_int("dim", dim, 1, 100_000) % check_int("heads", heads, 1, 1000):
            raise ValueError(f"`dim` must be a multiple of heads ({heads}); got {dim}.")
        self.vocabulary, self.context = (
            tuple(as_list(vocabulary, "vocabulary")),
            check_int("context", context, 1, 10**6),
        )
        self._place = {word: i for i, word in enumerate(self.vocabulary) if i}
        self.dim, self.pooled_dim, self.layers, self.heads = dim, dim, layers, heads
        self.word = nn.Embedding(len(self.vocabulary), dim)
        # As large as nn.Embedding's words: a whisper beside them would leave the prompt a bag of words for very long.
        self.position = nn.Parameter(torch.randn(context, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)

    @classmethod
    def of(cls, captions: Sequence[str], **settings: Any) -> WordEncoder:
        """An untrained encoder that knows the words of these captions and is as long as the longest."""
        rows = [_words(caption) for caption in as_list(captions, "captions")]
        if not any(rows):
            raise ValueError(f"`captions` must have at least one word between them; got {list(captions)!r:.80}.")
        return cls(("<pad>", *sorted({word for row in rows for word in row})), max(map(len, rows)), **settings)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word ids (B, context) and their mask; see `word_ids`."""
        return word_ids(prompts, self._place, self.context)

    def words(self, prompt: str) -> list[str]:
        """The words of a prompt, in the order of the token states."""
        return _words(prompt)

    def encode_ids(self, ids: Tensor, mask: Tensor) -> TextEmbedding:
        """Encode word ids (B, L) with their mask (B, L)."""
        h = self.word(ids.long()) + self.position[: ids.shape[1]]
        # Not times the mask: torch answers NaN where a prompt has no word at all.
        tokens = self.transformer(h, src_key_padding_mask=~mask).masked_fill(~mask[..., None], 0)
        pooled = tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return TextEmbedding(tokens.float(), mask, unit_rms(pooled))

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts: tokens (B, L, dim), mask (B, L), pooled (B, dim)."""
        ids, mask = (part.to(self.position.device) for part in self.tokenize(prompts))
        return self.encode_ids(ids, mask)

    def settings(self) -> dict[str, Any]:
        """The configuration as plain values, for a checkpoint's JSON."""
        sizes = ("context", "dim", "layers", "heads")
        return {"vocabulary": list(self.vocabulary)} | {name: getattr(self, name) for name in sizes}


def word_ids(prompts: Sequence[str], places: Mapping[str, int], length: int) -> tuple[Tensor, Tensor]:
    """The places of the words of prompts, (B, length) filled up with 0, and their mask, True = a word.

    Words are taken in lower case, without punctuation; the empty prompt has none. Raises ValueError for a word that
    has no place, with the nearest one that has, for more than `length` words, and for anything but a list of strings.
    """
    rows, known = [], list(filter(places.get, places))  # the padding is no word
    for prompt in as_list(prompts):
        words = _words(prompt)
        if len(words) > length:
            raise ValueError(f"`prompts` must have at most {length} words each; got {len(words)}.")
        found = [places.get(word, 0) or places[check_choice("words", word, known)] for word in words]
        rows.append(found + [0] * (length - len(found)))
    ids = torch.tensor(rows, dtype=torch.long).view(len(rows), length)
    return ids, ids > 0


def _words(prompt: str) -> list[str]:
    if not isinstance(prompt, str):
        raise ValueError(f"`prompts` must be strings; got {type(prompt).__name__}: pass text.")
    return re.findall(r"[^\s.,;:!?()\"]+", prompt.lower())
