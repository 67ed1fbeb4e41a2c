"""The look of a page of explanations, in light and in dark."""

STYLE = """
:root{color-scheme:light dark;--back:#fbfbfa;--card:#fff;--ink:#1d1f21;--pale:#5d6268;--line:#dcdcd8;
--subject:#1f6fe0;--object:#d2570a;--caption:#0b7f6a;--mrc:#7b4fd0;--match:#0b7f6a;--track:#ececea;--heat:1}
@media (prefers-color-scheme:dark){:root{--back:#16181a;--card:#1f2225;--ink:#eceeef;--pale:#a4abb1;--line:#363b40;
--subject:#3d8bfd;--object:#e8701a;--caption:#13967e;--mrc:#9c7bea;--match:#13967e;--track:#30353a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:82rem;padding:1.2rem;font:16px/1.45 system-ui,sans-serif;background:var(--back);
color:var(--ink)}
h1{font-size:1.5rem;margin:.2rem 0 .8rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6rem 0 .2rem}
p{margin:.2rem 0 .7rem;max-width:75ch}.pale{color:var(--pale);font-size:.9em;overflow-wrap:anywhere}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,14.4rem),1fr));align-items:start}
.grid.small{grid-template-columns:repeat(auto-fill,minmax(min(46%,9.5rem),1fr));gap:.7rem}
.grid.wide{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
figure,.card{margin:0;padding:.6rem;background:var(--card);border:1px solid var(--line);border-radius:8px}
figcaption{padding-top:.4rem;font-size:.92em;overflow-wrap:anywhere}
.view{position:relative;overflow:hidden;border-radius:4px;background:#000}
.view i,.view .heat,.view svg{position:absolute;inset:0;width:100%;height:100%}
.view i{background-size:100% 100%}.view.hot i{filter:grayscale(.75) brightness(.8)}
.view .heat{opacity:var(--heat)}
rect{fill:none;vector-effect:non-scaling-stroke;stroke-width:3}
rect.edge{stroke:#fff;stroke-width:5.5;stroke-opacity:.75}rect.given{stroke-dasharray:7 5}
rect.subject{stroke:var(--subject)}rect.object{stroke:var(--object)}rect.caption{stroke:var(--caption)}
.tag{position:absolute;padding:0 .35em;font-size:.78rem;line-height:1.45;color:#fff;white-space:nowrap;
border-radius:3px;max-width:60%;overflow:hidden;text-overflow:ellipsis}
.tag.subject,.key.subject{background:#1a5fc4}.tag.object,.key.object{background:#b34a08}
.tag.caption,.key.caption{background:#0a6f5d}
.key{display:inline-block;padding:0 .5em;border-radius:3px;color:#fff}
.legend{display:flex;gap:.4rem 1.1rem;flex-wrap:wrap;align-items:center;margin:.5rem 0;font-size:.92em}
.legend b{display:inline-block;width:2.2em;border-top:3px solid;vertical-align:middle;margin-right:.4em}
.legend b.given{border-top-style:dashed}
.ramp{display:inline-block;width:7em;height:.8em;border-radius:3px;vertical-align:middle;margin:0 .4em;
background:linear-gradient(90deg,#420a6855,#932667,#dd513a,#fca50a,#fcffa4)}
.meter{display:block;height:.55rem;border-radius:3px;background:var(--track);overflow:hidden;min-width:3rem}
.meter span{display:block;height:100%;background:var(--match)}.meter.mrc span{background:var(--mrc)}
.big{font-size:1.9rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.2}
.bars{width:100%;border-collapse:collapse;font-size:.92em;font-variant-numeric:tabular-nums}
.bars td,.bars th{padding:.16rem .4rem;text-align:left;font-weight:400}.bars th{color:var(--pale)}
.bars td.n{text-align:right;width:3.4em}.bars tr.own td:first-child{font-weight:650}.bars .meter{width:100%}
.bars col.name{width:34%}.note{border-left:4px solid var(--object);padding:.3rem .7rem;margin:.5rem 0;
background:var(--card);max-width:75ch}
label.slide{color:var(--pale);font-size:.9em}label.slide input{vertical-align:middle;width:8rem}
section+section{border-top:2px solid var(--line);margin-top:2rem;padding-top:1rem}
"""
