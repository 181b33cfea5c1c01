"""The loops of a device, and which pictures sit in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.recent import Recent
from sdxl_trt.runtime.serve.job import PictureWork, Place
from sdxl_trt.runtime.serve.scheduler import Batch, Group
from sdxl_trt.runtime.slots import Parked

if TYPE_CHECKING:
    from sdxl_trt.runtime.expert import Expert

LOOPS = 4
"""Groups that have a loop at a time, beside those that were warmed up; pictures of others are parked."""


class Seats:
    """Loops by group, each of as many slots as the engines take, and their pictures. For one thread.

    Args:
        slots: of each loop.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._loops = Recent[Group, Loop](LOOPS)
        self._seated = dict[Group, dict[int, PictureWork]]()

    def keep(self, expert: Expert, group: Group, shape: tuple[int, int, int]) -> Loop:
        """A group's loop, which stays from now on.

        Args:
            expert: the model.
            group: that it is for.
            shape: latent height and width, and tokens.
        """
        return self._loops.keep(group, lambda: expert.new_loop(self._loops, self._slots, *shape))

    def arrange(self, expert: Expert, batch: Batch, pictures: Sequence[PictureWork], tokens: int) -> Loop:
        """Seat the pictures of a batch in its group's loop, and nobody else.

        Raises:
            RunError: the device failed.
        """
        leaving = self._loops.leaving(batch.group)
        if leaving is not None:
            self.park(self._seated.pop(leaving, {}).values())
        _, height, width = pictures[0].job.drafts[pictures[0].leg].settings.latent_shape
        loop = self._loops.get(batch.group, lambda: expert.new_loop(self._loops, self._slots, height, width, tokens))
        seated = self._seated.setdefault(batch.group, {})
        self.park([each for each in seated.values() if each not in pictures])
        for picture in pictures:
            if picture.place is None and picture.waiting is not None:
                waiting, picture.waiting = picture.waiting, None
                slot = loop.resume(waiting) if isinstance(waiting, Parked) else loop.join(waiting)
                picture.place = Place(loop=loop, slot=slot)
                seated[slot] = picture
        return loop

    def park(self, pictures: Iterable[PictureWork]) -> None:
        """Take pictures out of their loops; they go on later."""
        for picture in list(pictures):
            if picture.place is not None:
                picture.waiting = picture.place.loop.park(picture.place.slot)
                self._forget(picture)

    def park_all(self) -> None:
        """Take all pictures out: loops may go."""
        for seated in list(self._seated.values()):
            self.park(seated.values())

    def leave(self, picture: PictureWork) -> None:
        """Free a picture's slot, where it has one."""
        if picture.place is not None:
            picture.place.loop.leave(picture.place.slot)
            self._forget(picture)

    def take(self, picture: PictureWork) -> NDArray[np.float32]:
        """A finished picture's latents [4, h, w]; its slot is free then."""
        if picture.place is None:
            raise ValueError("a picture that is in no loop has no latents to take")
        latents = picture.place.loop.latents(picture.place.slot)
        self.leave(picture)
        return latents

    def close(self) -> None:
        """Let all loops go."""
        self._loops.clear()
        self._seated.clear()

    def _forget(self, picture: PictureWork) -> None:
        place, picture.place = picture.place, None
        for seated in self._seated.values():
            if place is not None and seated.get(place.slot) is picture:
                del seated[place.slot]
