"""A vision-language model with LoRA adapters: prompts in, log-probabilities out. Knows no family by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import Example
from lightning_modules.adapters import AdaptedModel
from lightning_modules.families.base import ImageInput, VisionLanguageFamily
from lightning_modules.feature_cache import FeatureCache
from lightning_modules.functional.scoring import target_logps, token_logps
from lightning_modules.packing import Packing
from lightning_modules.picture_reading import HeldPictures, PictureReader
from lightning_modules.prompts import Prompt, refuse_beyond, write_prompts

Images = Sequence[tuple[str, ImageInput]]
"""A question's pictures in order: (key, preprocessed)."""


@dataclass(frozen=True)
class Line:
    """Prompts and what follows them, packed.

    Attributes:
        ids: (N,) int64.
        positions: (A, N) int64.
        images: (key, preprocessed picture) of every placeholder run in the line, in order.
        packing: which tokens see which.
        rests: tokens of each row that belong to its prompt, at least 1; the last of them predicts what follows.
    """

    ids: Tensor
    positions: Tensor
    images: tuple[tuple[str, ImageInput], ...]
    packing: Packing
    rests: tuple[int, ...]


@dataclass(frozen=True)
class States:
    """What completions are predicted from.

    Attributes:
        hidden: (N, H), one for each True of the mask, rows first.
        completion_mask: (B, T) bool, True at completion tokens.
        tokens: that the language model ran on.
    """

    hidden: Tensor
    completion_mask: Tensor
    tokens: int


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of completions.

    Attributes:
        logps: (B, T) nats, zero outside the mask.
        entropy: (B, T) nats, detached unless its gradient was asked for.
        completion_mask: (B, T) bool, True at completion tokens.
        tokens: N, tokens that the language model ran on.
    """

    logps: Tensor
    entropy: Tensor
    completion_mask: Tensor
    tokens: int


class Policy(AdaptedModel):
    """An adapted model that reads questions: it owns the cache of picture features, packs, and scores."""

    def __init__(self, family: VisionLanguageFamily, *, cache: FeatureCache | None = None) -> None:
        """Wrap a family; everything is frozen until an adapter or a part of the base is made trainable.

        Args:
            family: the model.
            cache: of picture features; None holds up to 256 MiB in memory.
        """
        super().__init__(family)
        self.cache = cache if cache is not None else FeatureCache(2**28)
        self.pictures = HeldPictures(family.preprocess, self.cache.held.max_bytes)
        self.register_buffer("banned", torch.tensor(family.banned_token_ids, dtype=torch.long), persistent=False)

    # -- prompts and pictures ------------------------------------------------------------------------------------

    def prompt(self, example: Example, instruction: str, images: Images | None = None) -> Prompt:
        """Tokenise a question under a guideline's instruction; see `prompts`."""
        return self.prompts(example, [instruction], images)[0]

    def prompts(self, example: Example, instructions: Sequence[str], images: Images | None = None) -> list[Prompt]:
        """Tokenise a question under several instructions, and note how far the prompts are the same.

        Args:
            example: the question.
            instructions: of guidelines; empty for the neutral prompt.
            images: what `read_picture` made of its pictures, in order; None reads those that are not held.

        Raises:
            BadExampleError: a picture cannot be read.
            ValueError: `images` has not one for each picture.
        """
        if images is None:
            images = tuple(self.pictures.read(source) for source in example.images)
        if len(images) != len(example.images):
            raise ValueError(
                f"example {example.question_id!r}: got {len(images)} images for {len(example.images)} pictures; are "
                "they those of another row?"
            )
        return write_prompts(self.family, example, instructions, tuple(images))

    @property
    def read_picture(self) -> PictureReader:
        """Decodes and preprocesses one picture; light enough to be sent to loader workers."""
        return PictureReader(self.family.to_input)

    def completion_ids(self, text: str) -> list[int]:
        """Tokenise a completion and end it."""
        return self.family.reply_ids(text)

    def features(self, images: Iterable[tuple[str, ImageInput]]) -> dict[str, Tensor]:
        """Picture features by key: each distinct picture is encoded once, and kept while the tower is frozen.

        Each is encoded alone: on a GPU the last bits of a picture's features depend on the pictures beside it, and a
        resumed run finds other pictures new than an uninterrupted one.
        """
        wanted = dict(images)
        if any(p.requires_grad for p in (*self.family.vision_parameters(), *self.family.projector_parameters())):
            return dict(zip(wanted, self.family.encode_images(list(wanted.values())), strict=True)) if wanted else {}
        found = {key: self.cache.get(key) for key in wanted}
        for key in [key for key, feature in found.items() if feature is None]:
            with torch.no_grad():
                found[key] = self.family.encode_images([wanted[key]])[0].clone()
            self.cache.put(key, found[key])
        return found

    def line(self, prompts: Sequence[Prompt], tails: Sequence[Sequence[int]], *, keep: bool = False) -> Line:
        """Pack prompts and what follows them; what several prompts share stands there once.

        Args:
            prompts: B prompts.
            tails: B token lists that follow them, empty allowed.
            keep: remember keys and values, for decoding.
        """
        uses = Counter(prompt.prefix for prompt in prompts)
        prefixes = {p.prefix: p for p in prompts if p.shared and uses[p.prefix] > 1}
        index = {prefix: place for place, prefix in enumerate(prefixes)}
        ids: list[int] = []
        positions: list[Tensor] = []
        images: list[tuple[str, ImageInput]] = []
        for prompt in prefixes.values():
            ids += prompt.ids[: prompt.shared]
            positions.append(prompt.positions[:, : prompt.shared])
            images += prompt.images
        rows, rests = [], []
        for prompt, tail in zip(prompts, tails, strict=True):
            prefix = index.get(prompt.prefix)
            start = 0 if prefix is None else prompt.shared
            if prefix is None:
                images += prompt.images
            ids += [*prompt.ids[start:], *tail]
            after = prompt.positions[:, -1:] + torch.arange(1, len(tail) + 1)
            positions += [prompt.positions[:, start:], after]
            rests.append(len(prompt.ids) - start)
            rows.append((prefix, rests[-1] + len(tail)))
        whole = [token == self.family.image_token_id for token in ids] if self.family.whole_pictures else None
        return Line(
            torch.tensor(ids, device=self.device),
            torch.cat(positions, dim=1).to(self.device),
            tuple(images),
            Packing(
                [prompt.shared for prompt in prefixes.values()],
                rows,
                device=self.device,
                keep=keep,
                whole_pictures=whole,
            ),
            tuple(rests),
        )

    def hidden_states(self, line: Line) -> Tensor:
        """(N, H) last states of a line under the active adapters."""
        embeds = self.family.embed_tokens(line.ids)
        if line.images:
            features = self.features(line.images)
            places = (line.ids == self.family.image_token_id)[:, None]
            shown = torch.cat([features[key].to(embeds) for key, _ in line.images])
            embeds = F.pad(embeds, (0, shown.shape[1] - embeds.shape[1])).masked_scatter(places, shown)
        return self.family.hidden_states(embeds, line.positions, line.packing)

    # -- scoring -------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.banned.device

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[int]],
        temperature: float = 1.0,
        *,
        entropy_gradient: bool = False,
    ) -> Scores:
        """Log-probabilities of completions under the active adapters, with gradient.

        A row's values do not depend on the rows beside it, whatever they share.

        Args:
            prompts: B prompts.
            completions: B token lists, each ending with the end token where the model stopped by itself.
            temperature: of the distribution that is scored; the one that was sampled from.
            entropy_gradient: let the entropies carry a gradient too.

        Raises:
            BadExampleError: a prompt with its completion is over the model's context.
        """
        states = self.completion_states(prompts, completions)
        targets = torch.tensor([token for ids in completions for token in ids], device=self.device)
        logps, entropy = token_logps(
            states.hidden,
            targets,
            self.family.logits,
            banned=self.banned,
            temperature=temperature,
            entropy_gradient=entropy_gradient,
        )
        mask = states.completion_mask
        return Scores(unflatten(logps, mask), unflatten(entropy, mask), mask, states.tokens)

    @torch.no_grad()
    def logps(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> Tensor:
        """The log-probabilities of `score`, to the last bit, without gradient and without entropies; cheaper.

        Returns:
            (B, T) nats, zero outside the completions.

        Raises:
            BadExampleError: a prompt with its completion is over the model's context.
        """
        states = self.completion_states(prompts, completions)
        targets = torch.tensor([token for ids in completions for token in ids], device=self.device)
        about = {"banned": self.banned, "temperature": temperature}
        return unflatten(target_logps(states.hidden, targets, self.family.logits, **about), states.completion_mask)

    def completion_states(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> States:
        """The states that predict completions under the active adapters, with gradient; arguments as of `score`.

        Raises:
            BadExampleError: a prompt with its completion is over the model's context.
        """
        refuse_beyond(self.family.context, prompts, list(map(len, completions)))
        line = self.line(prompts, [ids[:-1] for ids in completions])  # nothing is predicted from a last token
        lengths = torch.tensor([len(ids) for ids in completions])
        completion_mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(self.device)
        first = torch.tensor(line.packing.row_starts) + torch.tensor(line.rests) - 1
        predicts = (first[:, None] + torch.arange(int(lengths.max()))).to(self.device)[completion_mask]
        hidden = self.hidden_states(line).index_select(0, predicts)
        return States(hidden, completion_mask, len(line.ids))


def unflatten(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) values back into the True places of a (B, T) mask, zero elsewhere; rows first, as masking took them."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
