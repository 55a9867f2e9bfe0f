"""``python -m minivit``: what there is, and what is in force on this machine."""

import textwrap

from minivit import command

COMMANDS = {
    "train": "train a network",
    "sweep": "train many networks, from one file that says which",
    "evaluate": "measure a trained network on test images",
    "compare": "put finished runs side by side",
    "predict": "name what a trained network sees in image files",
    "attention": "draw where trained networks look",
    "pack": "write a trained binary network as one small file of bits",
    "convert": "bring official PyTorch or timm weights in, and out again",
    "profile": "count parameters, multiply-adds and memory, layer by layer",
}


def main(argv=None):
    """Print commands, models, data sets, recipes and the environment."""
    parser = command.Parser(
        None, description="List commands, models, data sets, recipes, and what is in force."
    )
    parser.parse_args(argv)

    from minivit.data import DATASETS
    from minivit.models import configure, describe_models
    from minivit.training.environment import describe_environment
    from minivit.training.recipes import RECIPES

    _section(
        "commands (each answers to --help)",
        {f"python -m minivit.{name}": text for name, text in COMMANDS.items()},
    )
    small, large = {}, {}
    for name, description in describe_models().items():
        if max(configure(name).image_shape) <= 64:
            small[name] = description
        else:
            large.setdefault(name.partition("_")[0], []).append(name)
    _section("models for small images", small)
    _section("models for larger images", {family: " ".join(names) for family, names in large.items()})
    _section("data sets", DATASETS)
    _section("recipes", {recipe.name: recipe.description for recipe in RECIPES.values()})
    _section("in force here", describe_environment())


def _section(title, rows):
    width = max(map(len, rows), default=0)
    print(f"{title}:")
    for name, text in rows.items():
        lines = textwrap.wrap(str(text), 110 - width, break_on_hyphens=False) or [""]
        for label, line in zip([name, *[""] * len(lines[1:])], lines, strict=True):
            print(f"  {label:<{width}}  {line}".rstrip())
    print()


if __name__ == "__main__":
    command.run(None, main)
