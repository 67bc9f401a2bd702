"""Models x methods x metrics x data, from a TOML file to a table and a report."""

from captum_vit.extras import extra

with extra("benchmark"):  # what the files of this folder import; refused here, before any of them is read
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import h5py  # noqa: F401
    import jinja2  # noqa: F401
    import pydantic  # noqa: F401
    import timm  # noqa: F401
    import tomli_w  # noqa: F401
    import torchvision  # noqa: F401
