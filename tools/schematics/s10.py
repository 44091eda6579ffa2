"""A chat as its tokens: which of them the loss counts."""

from .draw import WIDTH, Picture

# A problem of notebook 10, as SmolLM2's tokenizer cuts it. ⏎ is a new line, · a space that is a token of its own;
# the space that most words begin with is left out.
CHAT = {
    "system": "<|im_start|> system ⏎ You are a helpful AI assistant named Sm ol LM , trained by H ugging Face "
    "<|im_end|> ⏎",
    "user": "<|im_start|> user ⏎ Far id shares · 4 0 grapes equally among · 1 0 friends . "
    "How many grapes does each friend get ? <|im_end|> ⏎ <|im_start|> ass istant ⏎",
    "answer": "4 0 / · 1 0 = · 4 ⏎ #### · 4 <|im_end|>",
}
LEFT, HIGH, GAP = 122, 30, 5


def draw() -> Picture:
    picture = Picture("Only the answer is learned, and where it ends", 444)
    y = 82
    for role, tokens in CHAT.items():
        ink = "blue" if role == "answer" else "grey"
        picture.text(LEFT - 20, y + 20.5, role, anchor="end", bold=True, ink=ink)
        picture.text(
            LEFT - 20,
            y + 41,
            "loss" if role == "answer" else "no loss",
            size=15,
            anchor="end",
            ink=ink,
        )
        y, right = flow(picture, y, tokens.split(), role == "answer")
        y += 28
    picture.arrow((right - 44, y + 14), (right - 44, y - 12), ink="blue")
    picture.text(right - 44, y + 34, "the end token, too", size=15, ink="blue")
    picture.text(LEFT, y + 34, "⏎ a new line, · a space", size=15, ink="soft", anchor="start")
    return picture


def flow(picture: Picture, y: float, tokens: list[str], counted: bool) -> tuple[float, float]:
    """Tokens in lines; where the last of them ends, below and on the right."""
    x, ink = LEFT, "blue" if counted else "grey"
    for token in tokens:
        wide = 13 + sum(6 if letter in "iljt|.,r" else 10 for letter in token)
        if x + wide > WIDTH - 28:
            x, y = LEFT, y + HIGH + 8
        picture.box(x, y, wide, HIGH, f"{ink}-tint", ink if counted else "", round=6)
        picture.text(x + wide / 2, y + 20, token, size=15, ink=ink)
        if counted:
            picture.box(x, y + HIGH + 4, wide, 6, "blue", round=2)
        x += wide + GAP
    return y + HIGH, x - GAP
