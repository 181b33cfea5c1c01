"""What pictures of a model would take on a card, before anything is built: memory, disk, build, time.

models        the work of a model's graphs, from the package, a bundle or an export
components    the engines in the order they run; options that change them
policies      where weights are meanwhile, and the memory that takes
roofline      time, from the card's peaks and published engines' efficiencies
building      disk, build time and build memory, from our own measurement
plan          all of it together
alternatives  the same pictures in other numbers of steps and on other cards

Everything here is arithmetic on figures that are stated with their sources: it is estimated, never measured.
"""

from sdxl_trt.planning.alternatives import Alternatives, alternatives
from sdxl_trt.planning.components import Component, Option, Refined, Request, Tiled, Unguided, components
from sdxl_trt.planning.models import PUBLISHED, ModelCosts, Scratch, of_bundle, of_export, published, scratch_of
from sdxl_trt.planning.plan import Card, Plan, make_plan
from sdxl_trt.planning.policies import POLICIES, RESERVE, Memory, choose, gb, policies
from sdxl_trt.planning.roofline import Efficiency, Time

__all__ = [
    "POLICIES",
    "PUBLISHED",
    "RESERVE",
    "Alternatives",
    "Card",
    "Component",
    "Efficiency",
    "Memory",
    "ModelCosts",
    "Option",
    "Plan",
    "Refined",
    "Request",
    "Scratch",
    "Tiled",
    "Time",
    "Unguided",
    "alternatives",
    "choose",
    "components",
    "gb",
    "make_plan",
    "of_bundle",
    "of_export",
    "policies",
    "published",
    "scratch_of",
]
