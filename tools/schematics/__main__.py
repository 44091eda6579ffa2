from . import ALT, PICTURES, draw

PICTURES.mkdir(exist_ok=True)
for name in ALT:
    (PICTURES / f"{name}.svg").write_text(draw(name), encoding="utf-8", newline="\n")
