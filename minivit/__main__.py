"""``python -m minivit``: what there is, and what is in force on this machine."""

from minivit import command

COMMANDS = {
    "train": "train a network",
    "evaluate": "measure a trained network on test images",
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
    from minivit.models import describe_models
    from minivit.training.environment import describe_environment
    from minivit.training.recipes import RECIPES

    _section(
        "commands (each answers to --help)",
        {f"python -m minivit.{name}": text for name, text in COMMANDS.items()},
    )
    _section("models", describe_models())
    _section("data sets", DATASETS)
    _section("recipes", {recipe.name: recipe.description for recipe in RECIPES.values()})
    _section("in force here", describe_environment())


def _section(title, rows):
    width = max(map(len, rows), default=0)
    print(f"{title}:")
    for name, text in rows.items():
        print(f"  {name:<{width}}  {text}".rstrip())
    print()


if __name__ == "__main__":
    command.run(None, main)
