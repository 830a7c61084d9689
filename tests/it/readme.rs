//! What the documentation says is what the program does: its tables, its commands, its links.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn the_tables_of_the_documentation_are_those_that_list_prints() {
    for (what, file) in [
        ("kernels", "docs/kernels.md"),
        ("quants", "docs/formats.md"),
        ("policies", "docs/expert-cache.md"),
        ("gates", "docs/gates.md"),
        ("gate-settings", "docs/gates.md"),
        ("losses", "docs/gates.md"),
        ("published", "docs/gates.md"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(["list", what, "--markdown"]).output().unwrap();
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        let (begin, end) = (format!("<!-- begin: {what} -->\n"), format!("<!-- end: {what} -->"));
        let page = page(file);
        let written = page.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).expect("the page has the markers").0;
        assert_eq!(written.trim(), printed.trim(), "copy the output of `moebius list {what} --markdown` into {file}");
    }
}

#[test]
fn the_readme_names_every_command() {
    let readme = page("README.md");
    let help = Command::new(env!("CARGO_BIN_EXE_moebius")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(readme.contains(&format!("| `moebius {command}")), "{command} is not in the README's table of commands");
    }
}

/// Commands of the README that need a network, or a checkpoint that is not here.
const ELSEWHERE: [&str; 2] = ["allenai/", "olmoe-q4_0"];

/// The lines of the README's blocks of commands that begin with `moebius`.
fn commands() -> Vec<Vec<String>> {
    let readme = page("README.md");
    let blocks = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    let lines = lines.filter(|line| line.starts_with("moebius ") && !ELSEWHERE.iter().any(|word| line.contains(word)));
    lines.map(|line| arguments(line.split(" #").next().unwrap())).collect()
}

/// Words of a command line, with double quotes around some.
fn arguments(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    });
    words.skip(1).collect()
}

#[test]
fn the_commands_of_the_readme_run() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.len() >= 6, "{commands:?}");
    for arguments in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
        command.args(&arguments).current_dir(folder.path()).env("MOEBIUS_TUNING", "off");
        // The reference: what devices compute is the subject of other tests.
        if ["run", "chat", "trace"].contains(&arguments[0].as_str()) {
            command.args(["--device", "cpu"]);
        }
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "moebius {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Every page in Markdown that the project has itself; what is built or installed lies elsewhere.
fn pages() -> Vec<PathBuf> {
    const ELSEWHERE: [&str; 4] = ["target", "node_modules", "pkg", ".git"];
    let mut pages = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !path.is_symlink() && !ELSEWHERE.contains(&name) {
                folders.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

#[test]
fn every_page_is_looked_at() {
    let names: Vec<String> =
        pages().iter().map(|page| page.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")).collect();
    for name in [
        "README.md",
        "docs/decisions/README.md",
        "examples/models/demo/README.md",
        "scripts/gpu-compilers/README.md",
        "shaders/README.md",
    ] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
}

#[test]
fn files_that_pages_name_are_there() {
    const FOLDERS: [&str; 7] = ["docs/", "examples/", "scripts/", "shaders/", "src/", "tests/", "web/"];
    // Built files, and placeholders for any name.
    let is_made = |name: &str| name.starts_with("web/pkg") || name.contains(['<', '*', '{', ' ']) || name.contains("NAME");
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = std::fs::read_to_string(page).unwrap();
        // Every second part lies between backticks, once blocks of code are gone.
        let prose: String = text.split("```").step_by(2).collect();
        let named = prose.split('`').skip(1).step_by(2).filter(|name| FOLDERS.iter().any(|folder| name.starts_with(folder)));
        missing.extend(
            named
                .filter(|name| !is_made(name) && !name.ends_with("/x.rs") && !name.ends_with("/x.wgsl"))
                .filter(|name| !root().join(name.split_once("::").map_or(*name, |(file, _)| file)).exists())
                .map(|name| format!("{}: there is no {name}", page.display())),
        );
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The anchor of a heading, as hosts of repositories make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: the link {target} leads nowhere", page.display());
            if !fragment.is_empty() {
                let there = std::fs::read_to_string(&path).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line) == fragment), "{}: {target} has no such heading", page.display());
            }
        }
    }
}
