"""A chat as its tokens: which of them the loss counts."""

from .draw import WIDTH, Picture

# Notebook 10's problem, cut into tokens by SmolLM2's tokenizer; ⏎ is a new line, · a space that is a token
CHAT = (
    ("system", "<|im_start|> system ⏎ You are a helpful AI assistant <|im_end|> ⏎"),
    ("user", "<|im_start|> user ⏎ Far id shares · 4 0 grapes equally among · 1 0 friends . "
             "How many grapes does each friend get ? <|im_end|> ⏎ <|im_start|> ass istant ⏎"),
    ("answer", "4 0 / · 1 0 = · 4 ⏎ #### · 4 <|im_end|>"),
)  # fmt: skip
LEFT, HIGH, GAP = 120, 30, 5


def draw() -> Picture:
    picture = Picture("Only the answer is learned", 430)
    y = 84
    for role, tokens in CHAT:
        picture.text(LEFT - 18, y + 20.5, role, anchor="end", bold=True, ink="blue" if role == "answer" else "grey")
        y = flow(picture, y, tokens.split(), role == "answer") + 24
    return picture


def flow(picture: Picture, y: float, tokens: list[str], counted: bool) -> float:
    """Tokens in lines; the lower edge of the last line."""
    x = LEFT
    for token in tokens:
        wide = 9.4 * len(token) + 12
        if x + wide > WIDTH - 28:
            x, y = LEFT, y + HIGH + 9
        picture.box(x, y, wide, HIGH, "blue-tint" if counted else "grey-tint", "blue" if counted else "", round=6)
        picture.text(x + wide / 2, y + 20, token, size=15, ink="blue" if counted else "grey", bold=counted)
        if counted:
            picture.box(x, y + HIGH + 4, wide, 5, "blue", round=2)
        x += wide + GAP
    return y + HIGH
