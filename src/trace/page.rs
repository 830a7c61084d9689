//! A page of HTML that needs nothing else: no script, no request.

use super::svg::escape;
use std::fmt::Write;

const STYLE: &str = "
:root{color-scheme:light dark;--page:#f6f6f3;--card:#fff;--ink:#1c1d21;--soft:#5c5f68;--line:#dddcd6;--heat:#2f6fdd;--on-heat:#fff;--link:#2257b8}
@media (prefers-color-scheme:dark){:root{--page:#15161a;--card:#1d1f25;--ink:#e8e8ea;--soft:#a2a5b0;--line:#34363f;--heat:#6d9ff5;--on-heat:#10131a;--link:#8db4f8}}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:68rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,'DejaVu Sans',sans-serif}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:0 0 .3rem}h3{font-size:.95rem;margin:1rem 0 .2rem}
p{margin:.2rem 0 .6rem;color:var(--soft);font-size:.92rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1rem;margin-top:1rem;overflow-x:auto}
svg{max-width:100%;height:auto;display:block}rect{fill:var(--heat)}path{stroke:var(--heat);stroke-width:.9}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;margin:.6rem 0}a{color:var(--link)}
summary{cursor:pointer;color:var(--soft);padding:.3rem 0}pre{font:.75rem/1.35 ui-monospace,'DejaVu Sans Mono',monospace;margin:.3rem 0}
.text{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.8;color:var(--ink)}.text b{font-weight:400;border-radius:.2rem;border-right:1px solid var(--card)}
text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:var(--soft)}
path.k{fill:none;stroke-width:2}.k1{stroke:var(--ink);stroke-dasharray:8 3}.k2{stroke:var(--heat);stroke-dasharray:8 3}
.k3{stroke:var(--ink);stroke-dasharray:2 4}.k4{stroke:var(--soft);stroke-dasharray:9 3 2 3}path.a{stroke:var(--line);stroke-width:1}
.c,.n{text-anchor:middle}.r{text-anchor:end}text.n{fill:var(--ink);font-size:11px}text.s{fill:var(--on-heat)}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:500}td.n{text-align:right}code{font-family:ui-monospace,'DejaVu Sans Mono',monospace;white-space:pre-wrap}
.grid{display:flex;flex-wrap:wrap;gap:1rem}.grid>*{flex:1 1 min(26rem,100%);min-width:0}
.beside{display:flex;flex-wrap:wrap;gap:1rem 2rem;align-items:end}.beside>*{max-width:100%}
@media (max-width:40rem){body{padding:1rem .6rem 3rem}section{padding:.75rem}svg{max-width:none}summary,nav a{min-height:44px;align-content:center}}
@media (forced-colors:active){rect{fill:CanvasText}path,path.k,path.a{stroke:CanvasText}text,text.n,text.s{fill:CanvasText}.text b{border:1px solid CanvasText}}
";

/// A part of a page that the contents name.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) hint: &'static str,
    pub(super) content: String,
}

/// A page with contents. `title` and `intro` are plain text.
pub(super) fn page(title: &str, intro: &str, sections: &[Section]) -> String {
    let (title, intro) = (escape(title), escape(intro));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<header><h1>{title}</h1>\n<p>{intro}</p></header>\n",
    );
    page.push_str("<nav aria-label=\"Contents\">");
    sections.iter().for_each(|Section { name, title, .. }| page.push_str(&format!("<a href=\"#{name}\">{title}</a>")));
    page.push_str("</nav>\n<main>\n");
    for Section { name, title, hint, content } in sections {
        // What is wider than a phone is moved with the arrow keys, too.
        let _ = write!(
            page,
            "<section id=\"{name}\" tabindex=\"0\" aria-labelledby=\"{name}-title\"><h2 id=\"{name}-title\">{title}</h2><p>{hint}</p>\n{content}</section>\n"
        );
    }
    page.push_str("</main></body></html>\n");
    page
}

/// Figures, each row with a name.
pub(super) fn table(header: &[&str], rows: impl Iterator<Item = (String, Vec<String>)>) -> String {
    let mut text = String::from("<table><tr>");
    header.iter().for_each(|name| text.push_str(&format!("<th>{name}</th>")));
    text.push_str("</tr>");
    for (first, cells) in rows {
        let _ = write!(text, "<tr><th>{}</th>", escape(&first));
        cells.iter().for_each(|cell| text.push_str(&format!("<td class=\"n\">{}</td>", escape(cell))));
        text.push_str("</tr>");
    }
    text.push_str("</table>");
    text
}
