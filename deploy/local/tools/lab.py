"""JupyterLab, as it is brought along."""

import sys

# It builds a parser when it is imported, which takes longer than all of JupyterLab. It is an extra of jsonschema, which
# does without it: then it does not check whether a text is an IRI, as none of Jupyter's schemas asks.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

if __name__ == "__main__":
    from jupyterlab.labapp import main

    main()
