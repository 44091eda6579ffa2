"""What the tiny model reads: its alphabet, its pre-training tasks and its fine-tuning tasks.

Every task is one small function that draws a random problem and returns its prompt and answer.
A prompt is a capital letter naming the task, a space, its argument and `=`; arithmetic needs no
letter. Only methods of `random.Random` are used whose results are the same in every Python.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice

LETTERS = "abcdefghijklmnop"
DIGITS = "0123456789"
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SYMBOLS = " +-*/=:,?"
CHARACTERS = DIGITS + LETTERS + CAPITALS + SYMBOLS

Problem = tuple[str, str]
Draw = Callable[[random.Random], Problem]


def random_letters(rng: random.Random, shortest: int = 3, longest: int = 6) -> str:
    """A string of random letters whose length is uniform between the two bounds."""
    length = rng.randrange(shortest, longest + 1)
    return "".join(rng.choice(LETTERS) for _ in range(length))


def shift_letter(letter: str, places: int) -> str:
    """The letter that many places further in the alphabet, which wraps round."""
    return LETTERS[(LETTERS.index(letter) + places) % len(LETTERS)]


# --- pre-training: what the base model can do -----------------------------------------------------


def addition(rng: random.Random) -> Problem:
    """The sum of two numbers."""
    first, second = rng.randrange(100), rng.randrange(100)
    return f"{first}+{second}=", str(first + second)


def copy(rng: random.Random) -> Problem:
    """The letters as they are."""
    text = random_letters(rng)
    return f"C {text}=", text


def reverse(rng: random.Random) -> Problem:
    """The letters from the last to the first."""
    text = random_letters(rng)
    return f"R {text}=", text[::-1]


def sort(rng: random.Random) -> Problem:
    """The letters in alphabetical order."""
    text = random_letters(rng)
    return f"S {text}=", "".join(sorted(text))


def successor(rng: random.Random) -> Problem:
    """For each letter the next one, `a` after `p`."""
    text = random_letters(rng)
    return f"N {text}=", "".join(shift_letter(letter, 1) for letter in text)


def maximum(rng: random.Random) -> Problem:
    """The letter that comes last in the alphabet."""
    text = random_letters(rng)
    return f"M {text}=", max(text)


PRETRAINING_TASKS: dict[str, Draw] = {
    "addition": addition,
    "copy": copy,
    "reverse": reverse,
    "sort": sort,
    "successor": successor,
    "maximum": maximum,
}
# In twelfths of the mix. Addition is learned last by far, and sorting last but one.
SHARES = {"addition": 6, "copy": 1, "reverse": 1, "sort": 2, "successor": 1, "maximum": 1}


# --- fine-tuning: what the base model cannot do ---------------------------------------------------


def to_base_seven(number: int) -> str:
    """The digits of a whole number in base seven."""
    quotient, digit = divmod(number, 7)
    return (to_base_seven(quotient) if quotient else "") + str(digit)


def make_ciphers(count: int = 4, seed: int = 7) -> list[dict[int, str]]:
    """Random one-to-one substitutions of the letters, as tables for `str.translate`.

    They have nothing in common, so a low-rank update has to spend ranks on each of them.
    """
    rng = random.Random(seed)
    ciphers = []
    for _ in range(count):
        shuffled = list(LETTERS)
        rng.shuffle(shuffled)
        ciphers.append(str.maketrans(LETTERS, "".join(shuffled)))
    return ciphers


CIPHERS = make_ciphers()


def subtraction(rng: random.Random) -> Problem:
    """A number less a smaller or equal one."""
    smaller, larger = sorted((rng.randrange(100), rng.randrange(100)))
    return f"{larger}-{smaller}=", str(larger - smaller)


def base7_addition(rng: random.Random) -> Problem:
    """The sum of two numbers, all of it in base 7."""
    first, second = rng.randrange(49), rng.randrange(49)
    return f"B {to_base_seven(first)}+{to_base_seven(second)}=", to_base_seven(first + second)


def sort_descending(rng: random.Random) -> Problem:
    """The letters in reverse alphabetical order."""
    text = random_letters(rng)
    return f"D {text}=", "".join(sorted(text, reverse=True))


def shifted_alphabet(rng: random.Random) -> Problem:
    """Each letter moved on by the number in front."""
    text, places = random_letters(rng), rng.randrange(2, 8)
    return f"H {places} {text}=", "".join(shift_letter(letter, places) for letter in text)


def lookup(rng: random.Random) -> Problem:
    """The digit after the given letter."""
    keys = rng.sample(LETTERS, rng.randrange(2, 5))
    pairs = [(key, rng.choice(DIGITS)) for key in keys]
    wanted, value = rng.choice(pairs)
    return f"L {''.join(key + digit for key, digit in pairs)} {wanted}=", value


def ciphers(rng: random.Random) -> Problem:
    """The letters in the cipher of that number, 0 to 3."""
    text, number = random_letters(rng), rng.randrange(len(CIPHERS))
    return f"X {number} {text}=", text.translate(CIPHERS[number])


def interleave(rng: random.Random) -> Problem:
    """The letters of two words in turn."""
    length = rng.randrange(2, 5)
    first, second = (random_letters(rng, length, length) for _ in range(2))
    return f"I {first} {second}=", "".join(a + b for a, b in zip(first, second, strict=True))


def count(rng: random.Random) -> Problem:
    """How often the first letter occurs in the word."""
    wanted, *others = rng.sample(LETTERS, 3)
    text = "".join(rng.choice([wanted, wanted, *others]) for _ in range(rng.randrange(3, 9)))
    return f"K {wanted} {text}=", str(text.count(wanted))


FINE_TUNING_TASKS: dict[str, Draw] = {
    "subtraction": subtraction,
    "base7_addition": base7_addition,
    "sort_descending": sort_descending,
    "shifted_alphabet": shifted_alphabet,
    "lookup": lookup,
    "ciphers": ciphers,
    "interleave": interleave,
    "count": count,
}
TEST_ROWS = 500
TRAIN_ROWS = dict.fromkeys(FINE_TUNING_TASKS, 4000)
# These two have few prompts; what the test split leaves is for training.
TRAIN_ROWS["subtraction"] = 100 * 101 // 2 - TEST_ROWS
TRAIN_ROWS["base7_addition"] = 49 * 49 - TEST_ROWS


def unequal_problems(draw: Draw, rng: random.Random) -> Iterator[Problem]:
    """Problems of a task without end, no prompt twice."""
    seen = set()
    while True:
        prompt, answer = draw(rng)
        if prompt not in seen:
            seen.add(prompt)
            yield prompt, answer


def make_splits(task: str, seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """The train and the test problems of a fine-tuning task, without a common prompt."""
    problems = unequal_problems(FINE_TUNING_TASKS[task], random.Random(f"{task} {seed}"))
    test = list(islice(problems, TEST_ROWS))
    return list(islice(problems, TRAIN_ROWS[task])), test


def make_pretraining_problems(
    train_count: int, test_count: int, seed: int = 0
) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """The mix that the base model learns, and problems of every task that are not in it."""
    rng = random.Random(seed)
    held_out = {
        task: list(islice(unequal_problems(draw, rng), test_count))
        for task, draw in PRETRAINING_TASKS.items()
    }
    forbidden = {prompt for problems in held_out.values() for prompt, _ in problems}
    draws = [PRETRAINING_TASKS[task] for task, share in SHARES.items() for _ in range(share)]
    train = []
    while len(train) < train_count:
        prompt, answer = rng.choice(draws)(rng)
        if prompt not in forbidden:
            train.append((prompt, answer))
    return train, held_out
