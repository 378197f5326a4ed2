"""Training and judging of Un-0 models on a user's own class-labelled images."""

from un0.train.evaluate import Judge, Scores, evaluate, evaluate_model
from un0.train.recipe import Recipe, bundled_recipes, load_recipe
from un0.train.runner import Progress, run

__all__ = [
    "Judge",
    "Progress",
    "Recipe",
    "Scores",
    "bundled_recipes",
    "evaluate",
    "evaluate_model",
    "load_recipe",
    "run",
]
