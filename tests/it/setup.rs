//! `scripts/setup.sh` on machines that lack things, played with a made-up file system and without running what it would run.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output};

/// An empty machine of the distribution `id`.
fn machine(id: &str, codename: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/apt/sources.list.d")).unwrap();
    std::fs::write(root.path().join("etc/os-release"), format!("ID={id}\nVERSION_CODENAME=\"{codename}\"\n")).unwrap();
    root
}

fn touch(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "{}").unwrap();
}

/// What the script says it would do there.
fn setup(root: &Path, goal: &str) -> (Output, String) {
    let output = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup.sh"))
        .arg(goal)
        .env("MOEBIUS_SETUP_ROOT", root)
        .env("MOEBIUS_SETUP_DRY_RUN", "1")
        .env_remove("VK_DRIVER_FILES")
        .env_remove("VK_ICD_FILENAMES")
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, talk)
}

#[test]
fn a_machine_with_a_vulkan_driver_installs_nothing_to_run() {
    let root = machine("debian", "bookworm");
    touch(&root.path().join("usr/lib/x86_64-linux-gnu/libvulkan.so.1"));
    touch(&root.path().join("etc/vulkan/icd.d/nvidia_icd.json"));
    let (output, talk) = setup(root.path(), "run");
    assert!(output.status.success(), "{talk}");
    assert_eq!(talk, "");
}

#[test]
fn the_loader_inside_a_browser_does_not_count() {
    let root = machine("debian", "trixie");
    touch(&root.path().join("usr/lib/chromium/libvulkan.so.1"));
    touch(&root.path().join("usr/share/vulkan/icd.d/lvp_icd.json"));
    let (_, talk) = setup(root.path(), "run");
    assert!(talk.contains("apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1"), "{talk}");
}

#[test]
fn debian_12_takes_mesa_from_the_backports_of_its_own_mirror() {
    let root = machine("debian", "bookworm");
    let sources = root.path().join("etc/apt/sources.list.d");
    std::fs::write(sources.join("debian.sources"), "Types: deb\nURIs: https://mirror.example/debian\nSuites: bookworm\n")
        .unwrap();
    let (_, talk) = setup(root.path(), "run");
    assert!(talk.contains("deb https://mirror.example/debian bookworm-backports main"), "{talk}");
    assert!(talk.contains("-t bookworm-backports mesa-vulkan-drivers libvulkan1"), "{talk}");

    std::fs::write(sources.join("mine.list"), "deb https://mirror.example/debian bookworm-backports main\n").unwrap();
    let (_, talk) = setup(root.path(), "run");
    assert!(!talk.contains("bookworm-backports main"), "a second source was added: {talk}");
    assert!(talk.contains("-t bookworm-backports"), "{talk}");
}

#[test]
fn tests_want_swiftshader_on_debian_and_do_without_it_elsewhere() {
    let root = machine("debian", "bookworm");
    let (output, talk) = setup(root.path(), "test");
    assert!(output.status.success() && talk.contains("chromium"), "{talk}");

    let root = machine("ubuntu", "noble");
    let (output, talk) = setup(root.path(), "test");
    assert!(output.status.success() && !talk.contains("--no-install-recommends chromium"), "{talk}");
}

#[test]
fn other_systems_get_one_sentence_and_a_failure() {
    for (id, command) in [("fedora", "sudo dnf install mesa-vulkan-drivers"), ("arch", "sudo pacman -S vulkan-swrast")] {
        let root = machine(id, "");
        let (output, talk) = setup(root.path(), "run");
        assert_eq!(output.status.code(), Some(2));
        assert!(talk.contains(command), "{talk}");
    }
}
