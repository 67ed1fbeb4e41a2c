"""A contact sheet of what a search found, as one page that needs no other file."""

from __future__ import annotations

from html import escape

from relvlm.config.schema import DataConfig
from relvlm.evals.scoring.photos import Photo
from relvlm.explain.overlay import photo_address
from relvlm.library.search import Found, Hit

THUMBNAIL = 360
STYLE = """
:root{color-scheme:light dark;--back:#fbfbfa;--card:#fff;--ink:#1d1f21;--pale:#5d6268;--line:#dcdcd8;--bar:#0b7f6a;
--track:#ececea}
@media (prefers-color-scheme:dark){:root{--back:#16181a;--card:#1f2225;--ink:#eceeef;--pale:#a4abb1;--line:#363b40;
--bar:#13967e;--track:#30353a}}
body{margin:0 auto;max-width:82rem;padding:1.2rem;font:16px/1.45 system-ui,sans-serif;background:var(--back);
color:var(--ink)}h1{font-size:1.5rem;margin:.2rem 0;overflow-wrap:anywhere}.pale{color:var(--pale);font-size:.9em}
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));align-items:start}
figure{margin:0;padding:.6rem;background:var(--card);border:1px solid var(--line);border-radius:8px}
img{display:block;width:100%;aspect-ratio:4/3;object-fit:contain;background:var(--track);border-radius:4px}figcaption{padding-top:.4rem;overflow-wrap:anywhere;font-size:.9em}
b{font-variant-numeric:tabular-nums}
.meter{display:block;height:.5rem;border-radius:3px;background:var(--track);overflow:hidden;margin:.3rem 0}
.meter span{display:block;height:100%;background:var(--bar)}
"""


def sheet(text: str, found: Found) -> str:
    """The hits in order, each with its probability."""
    figures = "".join(_figure(number, hit) for number, hit in enumerate(found.hits, 1))
    left_out = f", {len(found.faults)} that cannot be read left out" if found.faults else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(text)}</title>"
        '<link rel=icon href="data:,"><meta name=viewport content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>{escape(text)}</h1><p class=pale>The best of {found.photos} photos{left_out}: the "
        f"nearest by features, in the order of their match.</p><main>{figures}</main></html>"
    )


def _figure(number: int, hit: Hit) -> str:
    photo = Photo(hit.path)
    picture = photo_address(photo.open(photo.read(), DataConfig.max_pixels), THUMBNAIL)
    return (
        f'<figure><img src="{picture}" alt=""><figcaption>{number}. <b>{100 * hit.match:.1f}%</b> '
        f"<span class=pale>cosine {hit.cosine:+.3f}</span><span class=meter><span style='width:{100 * hit.match:.1f}%'>"
        f"</span></span>{escape(str(hit.path))}</figcaption></figure>"
    )
