"""Word problems of one to three steps with a short worked solution, for the real model.

The problems come from the templates in `data/word_problems/templates.txt`, whose first lines
explain their form. The same template never gets the same numbers twice, so none of the test
problems can be had from a training problem by changing a name or a thing.
"""

import operator
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

TEMPLATES_FILE = Path(__file__).parents[1] / "data" / "word_problems" / "templates.txt"
TRAIN_ROWS, TEST_ROWS = 4000, 500

# fmt: off
FEMALE_NAMES = [
    "Ada", "Aisha", "Amira", "Bea", "Chiara", "Chloe", "Dina", "Elena", "Fatima", "Freya", "Grace",
    "Hana", "Ingrid", "Jada", "Keiko", "Kira", "Leila", "Lucía", "Maya", "Mei", "Nora", "Olga",
    "Priya", "Rosa", "Sofia", "Tara", "Uma", "Vera", "Yuki", "Zoe",
]
MALE_NAMES = [
    "Adam", "Ben", "Carlo", "Daniel", "Emil", "Farid", "Goran", "Hugo", "Ivan", "Jamal", "Kenji",
    "Kofi", "Liam", "Marco", "Niko", "Omar", "Pablo", "Quentin", "Rafael", "Samir", "Sven", "Theo",
    "Tobi", "Umar", "Victor", "Wei", "Yaw", "Yusuf", "Zane", "Zoltan",
]
# fmt: on
PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her"},
    "he": {"he": "he", "him": "him", "his": "his"},
}

COMPARISONS = {"<": operator.lt, ">": operator.gt, "!=": operator.ne}
SMALLEST_RESULT = 2  # "2 apples": the templates only know the plural

Values = dict[str, int]
Row = dict[str, str | int]


class Rejected(Exception):
    """These numbers do not suit the template: draw again."""


@dataclass
class Template:
    """One problem with slots, what may fill them, and the steps that solve it."""

    name: str
    text: str
    words: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, range] = field(default_factory=dict)
    requirements: list[tuple[str, str, str]] = field(default_factory=list)
    steps: list[tuple[str, str, str, str]] = field(default_factory=list)


def parse_template(block: str) -> Template:
    """Read one block of `templates.txt`."""
    heading, text, *lines = block.splitlines()
    template = Template(heading.strip("[]"), text)
    for line in lines:
        if line.startswith("word: "):
            slot, words = line.removeprefix("word: ").split(" = ")
            template.words[slot] = words.split(" | ")
        elif line.startswith("number: "):
            for slot, first, last, step in re.findall(r"(\w+) (\d+)-(\d+)(?: by (\d+))?", line):
                template.numbers[slot] = range(int(first), int(last) + 1, int(step or 1))
        elif line.startswith("require: "):
            template.requirements.append(tuple(line.removeprefix("require: ").split()))
        else:
            result, left, symbol, right = re.fullmatch(r"(\w+) = (\w+) (.) (\w+)", line).groups()
            template.steps.append((result, left, symbol, right))
    return template


def load_templates(path: Path = TEMPLATES_FILE) -> list[Template]:
    """Every template of the file, in its order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    content = "\n".join(line for line in lines if not line.startswith("#"))
    return [
        parse_template(block.strip()) for block in re.split(r"\n{2,}", content) if block.strip()
    ]


def calculate(left: int, symbol: str, right: int) -> int:
    """One step of a solution; its result is a whole number, or the numbers are rejected."""
    if symbol == "/":
        result, remainder = divmod(left, right)
        if remainder:
            raise Rejected
    else:
        result = {"+": left + right, "-": left - right, "*": left * right}[symbol]
    if result < SMALLEST_RESULT:
        raise Rejected
    return result


def solve(template: Template, numbers: Values) -> str:
    """The worked solution, one line for each step and `#### N` at the end."""
    values = dict(numbers)

    def value(operand: str) -> int:
        return int(operand) if operand.isdigit() else values[operand]

    lines = []
    for result, left, symbol, right in template.steps:
        values[result] = calculate(value(left), symbol, value(right))
        lines.append(f"{value(left)} {symbol} {value(right)} = {values[result]}")
    for left, comparison, right in template.requirements:
        if not COMPARISONS[comparison](value(left), value(right)):
            raise Rejected
    return "\n".join([*lines, f"#### {values['answer']}"])


def draw_persons(rng: random.Random) -> dict[str, str]:
    """Two people with different names, and the pronouns of the first."""
    pronoun, names = rng.choice((("she", FEMALE_NAMES), ("he", MALE_NAMES)))
    name = rng.choice(names)
    friend = rng.choice([other for other in FEMALE_NAMES + MALE_NAMES if other != name])
    pronouns = PRONOUNS[pronoun]
    capitalised = {slot.capitalize(): word.capitalize() for slot, word in pronouns.items()}
    return {"name": name, "friend": friend, **pronouns, **capitalised}


def draw_problem(rng: random.Random, template: Template, used: set[tuple[int, ...]]) -> Row:
    """A problem whose numbers this template has not had before; they are added to `used`."""
    while True:
        numbers = {slot: rng.choice(values) for slot, values in template.numbers.items()}
        key = tuple(numbers.values())
        if key in used:
            continue
        try:
            solution = solve(template, numbers)
        except Rejected:
            continue
        used.add(key)
        words = {slot: rng.choice(choices) for slot, choices in template.words.items()}
        prompt = template.text.format(**draw_persons(rng), **words, **numbers)
        return {
            "prompt": prompt,
            "answer": solution,
            "steps": len(template.steps),
            "template": template.name,
        }


def make_word_problems(seed: int = 0) -> tuple[list[Row], list[Row]]:
    """The train and the test rows; every template has the same share of both, give or take one."""
    rng = random.Random(seed)
    templates = load_templates()
    used = {template.name: set() for template in templates}
    splits = []
    for row_count in (TRAIN_ROWS, TEST_ROWS):
        rows = []
        for index in range(row_count):
            template = templates[index % len(templates)]
            rows.append(draw_problem(rng, template, used[template.name]))
        rng.shuffle(rows)
        splits.append(rows)
    return splits[0], splits[1]
