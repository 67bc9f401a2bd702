"""Sound clips with known answers: tones of six kinds in noise, and where each of them is in the spectrogram.

A clip of about a second holds one or several tones of different kinds, each in a quarter of its own: early or late, low
or high. A kind is how the pitch goes, not which pitch it is. The middle of a tone's pitch is a semitone, up to a
quarter of one; every third semitone is kept for testing, and no training clip has the middle of a tone there.

Every step below works on all clips at once; ``B`` counts clips, ``K`` tones of a clip, ``L`` = 15,600 samples of a
clip, ``T`` = 96 frames and ``F`` = 64 bands of its mel spectrogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from captum_vit.demo.sounds.model import BANDS, FRAMES, KINDS, RATE, demo_ast_extractor
from captum_vit.errors import OptionError
from captum_vit.options import integer, integer_or_none, one_of, shown, two_integers

SAMPLES = (FRAMES - 1) * 160 + 400  # frames of 25 ms, every 10 ms
REGISTERS = ((3, 12), (26, 36))  # first and last pitch, low and high, in semitones above 440 Hz
MAX_TONES = 4  # quarters of a clip
SPLITS = ("train", "test")
SECONDS = (0.3, 0.45)  # how long the tones are
EDGE = 0.01  # seconds of fading in and out


@dataclass(frozen=True)
class Clips:
    """A batch of clips and what is true of them."""

    waves: Tensor  # shape: (B, L), 16,000 samples a second
    kinds: Tensor  # shape: (B, K), what sounds, -1 where a clip has fewer
    tones: Tensor  # shape: (B, K, L), each tone by itself; without them ``waves`` is noise

    @cached_property
    def inputs(self) -> Tensor:
        """What the model takes: log-mel spectrograms (B, T, F), normalised, by the extractor of the model."""
        return _spectrograms(self.waves)

    @cached_property
    def masks(self) -> Tensor:
        """Where a tone is louder than all else in the clip together: (B, K, T, F), bool."""
        rest = self.waves[:, None] - self.tones
        louder = _spectrograms(self.tones.flatten(0, 1)) > _spectrograms(rest.flatten(0, 1))
        present = (self.kinds >= 0)[..., None, None]
        return louder.view(*self.kinds.shape, FRAMES, BANDS) & present

    def __len__(self) -> int:
        return len(self.waves)


def tone_clips(
    n_clips: int,
    n_tones: int | tuple[int, int] = 2,
    split: str = "test",
    seed: int = 0,
    *,
    without: int | None = None,
) -> Clips:
    """Draw clips; the same arguments give the same clips, and no global random state is touched.

    Args:
        n_clips: how many clips.
        n_tones: tones in each clip, at most 4, of different kinds; a pair ``(low, high)`` draws the number.
        split: ``"train"`` or ``"test"``: which pitches the tones have.
        seed: of the private generator.
        without: leave the tone at this position out, and everything else as it was. What a model then answers
            differently is what that tone did, known without any method of explanation.

    Raises:
        OptionError: an option out of its range.

    Example::

        >>> clips = tone_clips(2, n_tones=2)
        >>> clips.inputs.shape, clips.masks.shape
        (torch.Size([2, 96, 64]), torch.Size([2, 2, 96, 64]))
    """
    low, high = two_integers("n_tones", n_tones, hint="n_tones=2.") or (0, 0)
    integer("n_clips", n_clips, hint="n_clips=20.")
    integer("seed", seed, least=None, hint="seed=0.")
    integer_or_none("without", without, least=0, hint="without=None, which keeps all.")
    one_of("split", split, SPLITS)
    if not 1 <= low <= high <= MAX_TONES:
        wanted = f"`n_tones` from 1 to {MAX_TONES}, or a pair (low, high) of such."
        raise OptionError(wanted, shown(n_tones), "n_tones=2.")
    if without is not None and without >= high:
        wanted = f"`without` must be the position of a tone, 0 to {high - 1}."
        raise OptionError(wanted, shown(without), "without=None, which keeps all.")
    generator = Generator().manual_seed(seed)
    count = torch.randint(low, high + 1, (n_clips, 1), generator=generator)
    present = torch.arange(high) < count  # shape: (B, K)
    if without is not None:
        present[:, without] = False
    kinds = torch.rand(n_clips, len(KINDS), generator=generator).argsort(1)[:, :high]
    tones = _tones(kinds, split, generator) * present[..., None]
    return Clips(_noise(n_clips, generator) + tones.sum(1), kinds.masked_fill(~present, -1), tones)


def pitches(split: str) -> tuple[Tensor, Tensor]:
    """The middle pitches of a split, low ones and high ones, in semitones above 440 Hz."""
    low, high = (torch.arange(first, last + 1) for first, last in REGISTERS)
    return low[(low % 3 == 0) == (split == "test")], high[(high % 3 == 0) == (split == "test")]


def _tones(kinds: Tensor, split: str, generator: Generator) -> Tensor:
    """Tones of these kinds (B, K), each in a quarter of its own: (B, K, L)."""
    n, k = kinds.shape
    quarter = torch.rand(n, MAX_TONES, generator=generator).argsort(1)[:, :k]
    half = SAMPLES / RATE / 2
    length = _uniform((n, k), *SECONDS, generator)
    onset = quarter % 2 * half + _uniform((n, k), 0, 1, generator) * (half - length)
    seconds = torch.arange(SAMPLES) / RATE - onset[..., None]  # shape: (B, K, L), since the onset
    span = length[..., None]

    chosen = torch.rand(n, k, generator=generator)
    low, high = (pool[(chosen * len(pool)).long()] for pool in pitches(split))
    centre = torch.where(quarter < 2, low, high) + _uniform((n, k), -0.25, 0.25, generator)
    beat = _uniform((n, k, 1), 6, 13, generator)
    voices = _voices(kinds, seconds / span, beat * seconds) + centre[..., None, None]  # shape: (B, K, 3, L)
    phase = 2 * torch.pi * torch.rand(n, k, 1, 1, generator=generator)
    sound = (2 * torch.pi / RATE * (440 * 2 ** (voices / 12)).cumsum(-1) + phase).sin()

    loud = _uniform((n, k, 1), 0.05, 0.12, generator)
    fade = (torch.minimum(seconds, span - seconds) / EDGE).clamp(0, 1)
    chord, pulses = (kinds[..., None] == KINDS.index(name) for name in ("chord", "pulses"))
    beats = torch.where(pulses, (4 * (2 * torch.pi * beat * seconds).sin()).clamp(0, 1), torch.tensor(1.0))
    mixed = torch.where(chord, sound.mean(2) * 1.5, sound[:, :, 0])
    return loud * fade * beats * mixed


def _voices(kinds: Tensor, share: Tensor, beats: Tensor) -> Tensor:
    """How far from its pitch, in semitones, a tone is at each of ``share`` (B, K, L) of its length: (B, K, 3, L)."""
    ramp = 10 * share.clamp(0, 1) - 5
    steady = torch.zeros_like(share)
    wave = 4 * (2 * torch.pi * beats).sin()
    single = torch.stack([steady, ramp, -ramp, wave, steady, steady], 2)  # in the order of KINDS
    rows = kinds[..., None, None].expand(-1, -1, 1, share.shape[-1])
    apart = torch.tensor([0.0, -5.0, 5.0])[:, None] * (kinds == KINDS.index("chord"))[..., None, None]
    return single.gather(2, rows) + apart


def _noise(n: int, generator: Generator) -> Tensor:
    """Noise with more of it at low frequencies, and three clicks: (B, L)."""
    spectrum = torch.fft.rfft(torch.randn(n, SAMPLES, generator=generator))
    tilt = _uniform((n, 1), 0, 0.4, generator)
    shaped = torch.fft.irfft(spectrum * torch.linspace(0.02, 1, spectrum.shape[1]) ** -tilt, SAMPLES)
    level = _uniform((n, 1), 0.03, 0.08, generator)
    at = _uniform((n, 3, 1), 0, SAMPLES, generator)
    clicks = (-((torch.arange(SAMPLES) - at).abs()) / 24).exp().sum(1) * torch.randn(n, SAMPLES, generator=generator)
    return level * (shaped / shaped.std(1, keepdim=True) + 3 * clicks)


def _spectrograms(waves: Tensor) -> Tensor:  # shape: (B, L) -> (B, T, F)
    found = demo_ast_extractor()(list(waves.numpy()), sampling_rate=RATE, return_tensors="pt")
    return found["input_values"].float()


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
