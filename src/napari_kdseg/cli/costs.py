"""What networks cost, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from napari_kdseg.cli.running import run
from napari_kdseg.inference import CostConfig, CostResult, Subject
from napari_kdseg.inference.measuring.cost_figures import conditions, table


def measured(networks: list[str], **settings: object) -> CostResult:
    """Measure networks, given by path or name, with ``settings``; what was measured here before is looked up."""
    from napari_kdseg.inference import measure_costs

    subjects = {network: Subject(network=network) for network in networks}
    config = CostConfig.model_validate({"networks": subjects, **settings})
    return run(measure_costs, config, resumable=False)


def print_costs(result: CostResult, area_mm2: float) -> None:
    """Print two networks beside each other, any other number one after the other."""
    costs = result.costs
    together = [costs] if len(costs) == 2 else [{name: cost} for name, cost in costs.items()]
    for group in together:
        head, *rows = table(group, area_mm2)
        shown = Table(*head)
        for cells in rows:
            shown.add_row(*cells)
        Console(width=max(80, 30 + sum(len(name) + 3 for name in group))).print(shown)
        print(conditions(list(group.values())))
