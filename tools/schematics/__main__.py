from . import ALT, PICTURES, svg

PICTURES.mkdir(exist_ok=True)
for name in ALT:
    (PICTURES / f"{name}.svg").write_text(svg(name), encoding="utf-8", newline="\n")
