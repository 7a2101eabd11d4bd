"""The one thing that setup.cfg can't say: a C extension that an installation does without where it can't be built."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "headwater.core._hot",
            [
                "framework/headwater/core/_hot.c",
                "framework/headwater/core/_sends.c",
                "framework/headwater/core/_windows.c",
            ],
            depends=["framework/headwater/core/_hot.h"],
            optional=True,
        ),
    ]
)
