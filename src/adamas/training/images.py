"""Images: read from files of any format, and moved a little at random while training."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adamas.training.data import Dataset
from adamas.training.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["jiggle", "read_image", "read_image_folder"]

ROTATION = np.deg2rad(10)
SHIFT = 0.1
SCALE = 0.1


def read_image(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return an image file of any format that Pillow opens as (height, width) levels from 0, paper, to 1, ink.

    It becomes grey, what is transparent white, and it is fitted into the size with its proportions kept and what is
    missing filled with the level of its border (the median of its outermost pixels). If that border is light, the
    image is taken for dark ink on light paper and inverted, so that the border is always dark, as in MNIST.

    Raises ValueError, naming the file, if it is not an image or a damaged one; OSError if it cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - optional

    data = path.open("rb")  # a file that cannot be read is one thing, one that is no image another
    try:
        with data, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(data) as opened:
                image = _grey(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = "no image that Pillow opens" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path} cannot be used: {reason}") from None
    levels = np.asarray(image)
    border = int(np.median(np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])))
    if image.size != size[::-1]:
        image = ImageOps.pad(image, size[::-1], color=border)
    scaled: NDArray[np.float32] = np.divide(np.asarray(image), 255, dtype=np.float32)
    return 1 - scaled if border > 127 else scaled


def _grey(image: "Image") -> "Image":
    """Return an image with 8-bit grey levels; what is transparent becomes white."""
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith("I;16"):  # Pillow would clip it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")


def read_image_folder(folder: Path, size: tuple[int, int]) -> Dataset:
    """Return the images of a folder that has a folder for each class, as `read_image` reads them.

    Hidden files are passed over. Raises ValueError, naming it, for a folder that is no class with images and for a file
    that is no image; OSError for what cannot be read.
    """
    require("PIL", "reading images")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"{folder} holds neither IDX files (train-images-idx3-ubyte) nor a folder for each class")
    images, labels = [], []
    for label, of_class in enumerate(classes):
        files = sorted(path for path in of_class.iterdir() if not path.name.startswith("."))
        if not files:
            raise ValueError(f"{of_class} has no images: fill or remove it")
        images += [read_image(path, size) for path in files]
        labels += [label] * len(files)
    return Dataset(np.stack(images), np.array(labels, np.intp), tuple(path.name for path in classes))


def jiggle(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return images, (n, height, width), each turned, scaled and shifted a little at random; what comes in is 0.

    Turned by up to 10 degrees either way, scaled by up to a tenth, shifted by up to a tenth of the size.
    """
    import torch  # noqa: PLC0415 - optional
    from torch.nn.functional import affine_grid, grid_sample  # noqa: PLC0415

    n, height, width = images.shape
    angle = rng.uniform(-ROTATION, ROTATION, n)
    scale = 1 + rng.uniform(-SCALE, SCALE, n)
    x, y = rng.uniform(-SHIFT, SHIFT, (2, n)) * 2  # the grid goes from -1 to 1
    sine, cosine = np.sin(angle) * scale, np.cos(angle) * scale
    maps = np.array([[cosine, -sine * height / width, x], [sine * width / height, cosine, y]], np.float32)
    grid = affine_grid(torch.from_numpy(maps.transpose(2, 0, 1).copy()), [n, 1, height, width], align_corners=False)
    moved = grid_sample(torch.from_numpy(images)[:, None], grid, align_corners=False)
    result: NDArray[Any] = moved[:, 0].numpy()
    return result
