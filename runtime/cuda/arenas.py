"""Scratch memory of engines: two arenas, since the loop may run while text is encoded or a picture decoded.

An engine's activations live only while it runs. So engines that never run at the same time share one block, sized for
the largest of them at its largest shapes: one for the loop, one for what runs beside it. Where both blocks do not fit,
all engines share one, and then one stream has all the work, so that nothing runs at the same time.
"""

from __future__ import annotations

from typing import Literal

from sdxl_trt.runtime.cuda.context import Context, Owned

ArenaName = Literal["loop", "side"]

SPARE = 2**29
"""Bytes of free memory that arenas leave for tensors and graphs: an estimate for a loop of eight slots at 1024²."""


class Arenas:
    """The blocks. Their addresses stand in recorded graphs: a block never moves, it is replaced for later users."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._needed: dict[ArenaName, int] = {"loop": 0, "side": 0}
        self._blocks = dict[ArenaName, tuple[Owned, int]]()
        self._overlap: bool | None = None

    def reserve(self, name: ArenaName, size: int) -> None:
        """Have at least `size` bytes in an arena from its next `block` on."""
        self._needed[name] = max(self._needed[name], size)

    def clear(self) -> None:
        """Forget blocks and reservations: engines were closed. A block goes when none of its users is left."""
        self._blocks.clear()
        self._needed = {"loop": 0, "side": 0}

    @property
    def overlap(self) -> bool:
        """Whether both arenas fit beside each other. Decided the first time that it matters, then kept."""
        if self._overlap is None:
            free, _ = self._context.free()
            self._overlap = sum(self._needed.values()) + SPARE <= free
        return self._overlap

    def block(self, name: ArenaName) -> tuple[Owned, int]:
        """Memory of an arena, and its length in bytes. Whoever uses it keeps it; it is aligned to 256 bytes.

        Raises:
            OutOfMemory: there is too little.
        """
        key: ArenaName = name if self.overlap else "loop"
        needed = self._needed[name] if self.overlap else max(self._needed.values())
        if key not in self._blocks or self._blocks[key][1] < needed:
            self._blocks[key] = self._context.allocate(max(needed, 1), f"the scratch memory of {name} engines"), needed
        return self._blocks[key]
