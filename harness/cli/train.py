"""`zoo train METHOD`: makes a method's artifact alone."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import DEFAULT_MODEL, Device, Dtype, Json, Model, Seed


def train(
    method: Annotated[str, typer.Argument(help="The method, with parameters: bpe@vocab_size=8192.")],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    dtype: Dtype = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Train, calibrate or build what a method needs; runs find it by the hash of all that decides it."""
    from harness.catalog.spec import MethodSpec
    from harness.cli.output import print_json, print_text
    from harness.errors import UsageError
    from harness.kinds.artifacts import ArtifactStore
    from harness.subjects.load import load_subject

    built = MethodSpec.parse(method).build()
    if not built.trains:
        raise UsageError(f"{method} needs no artifact; `zoo list` says which methods train")
    subject = load_subject(model, device, dtype)
    store = ArtifactStore(seed)
    path = store.path(built, subject)
    known = path.is_file()
    artifact = store.obtain(built, subject)
    costs = {cost.metric: cost.value for cost in store.costs[built.card.id]}
    found = built.training_measurements(artifact)
    figures = {f"{m.metric} ({m.phase})" if m.phase else m.metric: m.value for m in found}
    seconds = costs["train_seconds"]
    if json_:
        print_json({"path": str(path), "seconds": seconds, "made_now": not known, "figures": figures})
        return
    print_text(f"{'found' if known else 'made'} {path} ({seconds:.1f} s when it was made)")
    for name, value in figures.items():
        print_text(f"  {name}: {value:.4g}")
