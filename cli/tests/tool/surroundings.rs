//! Completions and manual pages are made from the arguments, and know all of them.

use crate::common::{assert_exit, run, stderr};

/// The names of the commands, as the help lists them.
fn commands() -> Vec<String> {
    let help = run(&["--help"]);
    assert_exit(&help, 0);
    let text = String::from_utf8(help.stdout).unwrap();
    let list = text.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    // Descriptions that go on in the next line are indented further.
    let names = list.lines().filter(|line| !line.starts_with("   "));
    let names: Vec<String> =
        names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(names.len() > 10 && names.contains(&"export".to_owned()), "{names:?}");
    names
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_exit(&output, 0);
        assert!(output.stderr.is_empty(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        for command in commands() {
            assert!(text.contains(&command), "{shell} does not know {command}");
        }
        assert!(text.contains("keep-segments"), "{shell} does not know the flags");
    }
    assert_exit(&run(&["completions", "tcsh"]), 2);
    assert_exit(&run(&["completions"]), 2);
}

#[test]
fn bash_takes_its_completions() {
    let script = run(&["completions", "bash"]).stdout;
    let mut command = std::process::Command::new("bash");
    let text = format!(
        "{}\nCOMP_WORDS=(ringlog ex); COMP_CWORD=1; _ringlog ringlog ex ringlog\n\
         echo \"${{COMPREPLY[*]}}\"",
        String::from_utf8(script).unwrap()
    );
    let output = command.args(["--norc", "-c", &text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "export");
}

#[test]
fn the_manual_has_a_page_for_the_tool_and_for_each_command() {
    let tool = run(&["man"]);
    assert_exit(&tool, 0);
    let tool = String::from_utf8(tool.stdout).unwrap();
    assert!(tool.contains(".TH ringlog 1"), "{}", &tool[..200]);
    for command in commands() {
        if command == "help" {
            continue;
        }
        // Hyphens are escaped in roff.
        let name = command.replace('-', "\\-");
        assert!(tool.contains(&format!("ringlog\\-{name}(1)")), "{command} is not listed");
        let page = run(&["man", &command]);
        assert_exit(&page, 0);
        let page = String::from_utf8(page.stdout).unwrap();
        assert!(page.contains(&format!(".TH ringlog-{command} 1")), "{}", &page[..200]);
        assert!(page.contains("\\-\\-json"), "{command}: the global flags are there as well");
    }
    let unknown = run(&["man", "fly"]);
    assert_exit(&unknown, 2);
    assert!(stderr(&unknown).contains("fly"));
}
