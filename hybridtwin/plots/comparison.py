"""Pictures of rival explanations: evidence with its error, and what wider priors would make of it."""

import numpy as np

from hybridtwin.plots import BLUE, GRAY, ORANGE, figure_type, styled


@styled
def comparison(found):
    """Log evidence of every model, two standard errors wide; those that do not fit are gray and told."""
    rivals = sorted(found.rivals, key=lambda r: (r.candidate, r.log_evidence))
    figure = figure_type()(figsize=(7.5, 1.2 + 0.6 * len(rivals)), layout="constrained")
    ax = figure.subplots()
    for at, r in enumerate(rivals):
        color = BLUE if r.candidate else GRAY
        error = 2 * r.error if np.isfinite(r.error) else 0.0
        ax.errorbar(r.log_evidence, at, xerr=error, fmt="o", color=color, label="log evidence" if r.candidate else "does not fit")
        if np.isfinite(r.wider):
            ax.plot(r.wider, at, marker="|", markersize=14, color=ORANGE if r.candidate else GRAY, ls="",
                    label="with priors twice as wide" if r.candidate else None)  # fmt: skip
    ax.set_yticks(range(len(rivals)), [r.name for r in rivals])
    ax.set_ylim(-0.7, len(rivals) - 0.3)
    ax.set_xlabel("log evidence of the readings")
    ax.set_title(f"{found.twin.id}: {found.answer}")
    handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))  # one a label
    ax.legend(list(handles.values()), list(handles), loc="best")
    return figure
