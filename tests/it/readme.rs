//! The README's tables are those that the program prints.

use std::process::Command;

#[test]
fn the_tables_of_the_readme_are_those_that_list_prints() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for what in ["kernels", "quants"] {
        let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(["list", what, "--markdown"]).output().unwrap();
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        let (begin, end) = (format!("<!-- begin: {what} -->\n"), format!("<!-- end: {what} -->"));
        let written =
            readme.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).expect("the README has the markers").0;
        assert_eq!(written.trim(), printed.trim(), "copy the output of `moebius list {what} --markdown` between the markers");
    }
}

#[test]
fn the_readme_names_every_command() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_moebius")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(readme.contains(&format!("| `moebius {command}")), "{command} is not in the README's table of commands");
    }
}
