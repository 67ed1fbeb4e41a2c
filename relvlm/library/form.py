"""The local page itself: a photo, a sentence, and the explanation in a frame."""

FORM = """<!doctype html><html lang=en><meta charset=utf-8><title>relvlm demo</title>
<link rel=icon href="data:,"><meta name=viewport content="width=device-width,initial-scale=1">
<style>
:root{color-scheme:light dark;--back:#fbfbfa;--card:#fff;--ink:#1d1f21;--pale:#5d6268;--line:#c9c9c4;--go:#1a5fc4}
@media (prefers-color-scheme:dark){:root{--back:#16181a;--card:#1f2225;--ink:#eceeef;--pale:#a4abb1;--line:#454b51}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:82rem;padding:1.2rem;font:16px/1.45 system-ui,sans-serif;background:var(--back);
color:var(--ink)}h1{font-size:1.4rem;margin:.2rem 0 .8rem}
form{display:flex;gap:.8rem;flex-wrap:wrap;align-items:stretch}
label.photo{display:flex;align-items:center;justify-content:center;min-width:12rem;min-height:6rem;max-height:12rem;
border:2px dashed var(--line);border-radius:8px;cursor:pointer;background:var(--card);overflow:hidden;color:var(--pale)}
label.photo.over,label.photo:focus-within{border-color:var(--go)}label.photo img{max-height:11.5rem;max-width:18rem}
label.photo input{position:absolute;width:1px;height:1px;opacity:0}
.text{flex:1;min-width:min(100%,18rem);display:flex;flex-direction:column;gap:.5rem}
input[type=text],button{font:inherit;padding:.55rem .7rem;border-radius:6px;border:1px solid var(--line);
background:var(--card);color:var(--ink)}
button{background:var(--go);border-color:var(--go);color:#fff;cursor:pointer;align-self:start}button:disabled{opacity:.5}
.pale{color:var(--pale);font-size:.9em;margin:0}[role=alert]{color:#c0392b;margin:.6rem 0;min-height:1.4em}
iframe{width:100%;height:78vh;border:1px solid var(--line);border-radius:8px;display:none;background:var(--back)}
</style>
<h1>Where does it look?</h1>
<form><label class=photo><span>choose or drop a photo</span><input type=file accept="image/jpeg,image/png"></label>
<div class=text><input type=text name=text placeholder="man; riding; horse" aria-label="text" required>
<p class=pale>A triplet <i>subject; relation; object</i>, or a sentence.</p><button>Explain</button></div></form>
<div role=alert></div><iframe title="explanation" sandbox="allow-scripts"></iframe>
<script>
const form = document.querySelector('form'), file = form.querySelector('[type=file]');
const drop = form.querySelector('.photo'), alertBox = document.querySelector('[role=alert]');
const frame = document.querySelector('iframe'), button = form.querySelector('button');
let photo = null;
function take(chosen) {
  if (!chosen) return;
  photo = chosen;
  const img = new Image();
  img.alt = chosen.name; img.src = URL.createObjectURL(chosen);
  drop.querySelector('img, span').replaceWith(img);
}
file.addEventListener('change', () => take(file.files[0]));
for (const name of ['dragover', 'dragleave', 'drop']) drop.addEventListener(name, e => {
  e.preventDefault();
  drop.classList.toggle('over', name === 'dragover');
  if (name === 'drop') take(e.dataTransfer.files[0]);
});
form.addEventListener('submit', async e => {
  e.preventDefault();
  alertBox.textContent = photo ? '' : 'Choose a photo first.';
  if (!photo) return;
  button.disabled = true;
  try {
    const asked = '/explain?text=' + encodeURIComponent(form.elements.text.value);
    const answer = await fetch(asked, {method: 'POST', body: photo}), said = await answer.text();
    if (answer.ok) { frame.srcdoc = said; frame.style.display = 'block'; } else alertBox.textContent = said;
  } catch (error) { alertBox.textContent = 'The server does not answer: ' + error.message; }
  button.disabled = false;
});
</script></html>
"""
