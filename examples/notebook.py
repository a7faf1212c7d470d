# %% [markdown]
# # How much noise should two views of a digit carry?
#
# A sweep on handwritten digits from a notebook: twelve small trainings, a minute or two on two cores. The service must be up:
# `sweetspot up` on this machine, or `SWEETSPOT_URL` names another. Data frames need pandas, bars in a notebook ipywidgets.
# `notebook.py` and `sweetspot.ipynb` are the same cells.

# %%
from app.client import Sweetspot

STEPS = 150  # of each training; more make better encoders
service = Sweetspot()
service.url

# %% [markdown]
# What would the encoder see? Each row is one digit: v1 | v2.

# %%
digits = {"name": "digits", "image_size": 16}
service.preview(digits, {"kind": "noise", "sigma": 0.5})

# %% [markdown]
# Submit the sweep and watch it. What was trained before, with the same spec and code, is not trained again.

# %%
sweep = service.sweep(
    {
        "name": "noise on digits",
        "base": {
            "dataset": digits,
            "views": {"kind": "noise"},
            "pretrain": {"steps": STEPS},
            "tasks": [{"kind": "classification", "labels": 50}],
        },
        "axis": {"path": "views.sigma", "values": [0.05, 0.2, 0.5, 0.9, 1.5, 2.5]},
        "seeds": 2,
    }
)
sweep = service.wait(sweep["id"], progress=True)
sweep["counts"]

# %% [markdown]
# The curve is the API's JSON; a notebook shows it as the figure, whose title bears the verdict.

# %%
curve = service.curve(sweep["id"])
curve

# %%
print(curve.verdict())

# %%
frame = curve.to_frame()
frame[["i_nce", "i_nce_low", "i_nce_high", "saturated", "classification", "regime"]]

# %% [markdown]
# The same figure as an altair chart, which can be changed and saved.

# %%
chart = curve.plot()
chart.save("curve.svg")
chart

# %% [markdown]
# The winning recipe to take away, as code that needs nothing of Sweetspot.

# %%
print(service.recipe(sweep["id"], "torchvision"))

# %% [markdown]
# One of the trainings from close by: its loss, and all that is needed to come to its numbers again.

# %%
training = sweep["experiments"][0]["id"]
losses = [point["value"] for point in service.metrics(training, "loss")]
print(f"loss {losses[0]:.2f} at first, {losses[-1]:.2f} at last")
service.reproduce(training)["versions"]
