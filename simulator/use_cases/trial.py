"""One real training on a training order of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gptdynamics.runs import Bench, Run

if TYPE_CHECKING:
    from gptdynamics.curriculum import Curriculum


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        curriculum: `[steps][batch]` pool ids.
        run: a run's name, which seeds what is random in a training besides the curriculum.
        targets: other targets than the pool's, by id.
    """

    curriculum: Curriculum
    run: str = "0000"
    targets: Mapping[int, str] = field(default_factory=dict)

    def do(self, bench: Bench) -> Run:
        """Train and measure.

        Raises:
            DivergedRunError: a loss is not finite.
        """
        return bench.run(self.run, curriculum=self.curriculum, targets=self.targets)
