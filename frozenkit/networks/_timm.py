"""Networks of timm: by name and tag, from the Hugging Face hub, from a local folder; at the size that is wanted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError
from frozenkit.networks._hub import quick_when_offline


def load_timm(name: str, weights: str | None, image_size: int | None) -> nn.Module:
    """The network, built for this size; a hub's errors pass through.

    Args:
        name: ``timm/<name>[.<tag>]``, ``timm/hf-hub:<org>/<model>``, or ``timm/local-dir:<folder>``.
        weights: ``"default"``, or None for what torch draws now.
        image_size: Pixels; None is the size of its training.

    Raises:
        InputError: If name or weights are none, or the network cannot be had at this size.
        NotAvailableError: If a folder is not there.
        DataError: If a folder's files are not timm's, or damaged.
    """
    import timm

    if weights not in (None, "default"):
        raise InputError(f"`weights` of a timm backbone must be 'default' or None, got {weights!r}: name the tag.")
    short = name.removeprefix("timm/")
    source, colon, where = short.partition(":")
    if source == "local-dir" and where:
        module = _from_folder(name, Path(where).expanduser(), weights, image_size)
    elif source == "hf-hub" and where.count("/") == 1:
        with quick_when_offline("huggingface.co"):
            config = timm.models.load_model_config_from_hf(where)[0]
            module = _create(name, short, weights, image_size, config)
    elif colon or "/" in short:
        raise InputError(
            "`name` of a timm backbone must be 'timm/<name>[.<tag>]', 'timm/hf-hub:<org>/<model>' or "
            f"'timm/local-dir:<folder>', got {name!r}."
        )
    else:
        _check_known(short)
        config = _usual(short)
        if weights is None:
            module = _create(name, short, None, image_size, config)
        else:
            with quick_when_offline("huggingface.co"):
                module = _create(name, short, weights, image_size, config)
    if image_size:
        check_patches(name, getattr(getattr(module, "patch_embed", None), "patch_size", None), image_size)
    return module


def _usual(short: str) -> dict[str, Any]:
    """What timm knows of an architecture, or of its tag, such as the size that it was trained at."""
    import timm

    known = timm.get_pretrained_cfg(short)
    return {} if known is None else dict(known.to_dict())


def hub_name(name: str) -> str:
    """Where on the hub a network's weights lie, as far as its name tells."""
    import timm

    short = name.removeprefix("timm/").removeprefix("hf-hub:")
    if not timm.is_model(short):
        return short
    known = [_usual(short)] if "." not in short or short in timm.list_pretrained(f"{short.partition('.')[0]}.*") else []
    return next((each["hf_hub_id"] for each in known if each.get("hf_hub_id")), "<org>/<model>")


def check_patches(name: str, patch: object, image_size: int) -> None:
    """Refuses a size that would leave a rim of the image out of all patches."""
    side = patch[-1] if isinstance(patch, tuple | list) else patch
    if isinstance(side, int) and image_size % side:
        below = image_size // side * side
        raise InputError(
            f"`image_size` of {name} must be a multiple of its {side} px patches, got {image_size}. "
            f"Take {below or side} or {below + side}."
        )


def _check_known(short: str) -> None:
    import timm

    if not timm.is_model(short):
        raise UnknownNameError("name", f"timm/{short}", [f"timm/{m}" for m in timm.list_models()])
    architecture, _, tag = short.partition(".")
    if tag and short not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise UnknownNameError("name", f"timm/{short}", [f"timm/{m}" for m in known])


def _create(name: str, timms: str, weights: str | None, image_size: int | None, config: Mapping[str, Any]) -> nn.Module:
    """Built for `image_size`, with timm's own interpolation of what depends on it, where the network has one size."""
    import timm

    # Networks that take any size have no such argument.
    kwargs: dict[str, Any] = {"img_size": image_size} if image_size and config.get("fixed_input_size") else {}
    try:
        return timm.create_model(timms, pretrained=weights is not None, **kwargs)
    except (RuntimeError, TypeError, AssertionError) as error:
        native, reason = config["input_size"][-1], _first_words(error)
        is_size = isinstance(error, TypeError | AssertionError) or "size mismatch" in str(error)
        if kwargs and image_size != native and is_size:
            raise InputError(
                f"`image_size` of {name} must be {native}, as in its training, got {image_size}: it cannot be built "
                f"for another ({reason})."
            ) from error
        raise


def _from_folder(name: str, folder: Path, weights: str | None, image_size: int | None) -> nn.Module:

    file = folder / "config.json"
    if not file.is_file():
        raise NotAvailableError(
            f"{folder} must be a folder with config.json and model.safetensors, as timm.models.save_for_hf writes them "
            "and `hf download <org>/<model> --local-dir FOLDER` brings them; it has no config.json."
        )
    try:
        config = json.loads(file.read_text())
        config = _usual(config["architecture"]) | config["pretrained_cfg"]  # older files leave out what is usual
        is_timms = len(config["input_size"]) == 3
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        is_timms = False
    if not is_timms:
        raise DataError(
            f"{file} must be timm's, with a known `architecture`, and with `pretrained_cfg`. A folder of transformers "
            f"loads as 'hf:{folder}'."
        )
    try:
        return _create(name, f"local-dir:{folder}", weights, image_size, config)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes timm raise
        raise DataError(
            f"{folder} must hold a model that timm loads without unpickling code, but it says: {_first_words(error)}"
        ) from error


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
