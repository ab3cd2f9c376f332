//! Reads shell scripts as far as it takes to see how they end. What no shell would be asked for in a container's command is not
//! understood, and such a script counts as one that does not end in `exec`.

/// Shells, by the name of their program.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];

/// The script that a shell is given on its command line; nothing where no shell is, or where it reads a file.
pub(super) fn of_shell<'a>(words: &[&'a str]) -> Option<&'a str> {
    let shell = words.iter().position(|word| SHELLS.contains(&base_name(word)))?;
    let mut rest = words.iter().skip(shell + 1);
    while let Some(word) = rest.next() {
        if word.starts_with('-') && !word.starts_with("--") && word.contains('c') {
            return rest.find(|word| !word.starts_with('-') && !word.starts_with('+')).copied();
        }
        // `-o pipefail`: what follows belongs to it.
        if word.starts_with('-') && word.ends_with('o') {
            rest.next();
        } else if !word.starts_with('-') && !word.starts_with('+') {
            return None;
        }
    }
    None
}

/// The last command of a script, without comments.
pub(super) fn last_command(script: &str) -> String {
    let mut commands = vec![String::new()];
    let (mut quote, mut is_comment, mut is_word_start) = (None, false, true);
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        if is_comment {
            is_comment = letter != '\n';
            if is_comment {
                continue;
            }
        }
        let ends = matches!(letter, '\n' | ';' | '&' | '|');
        match (quote, letter) {
            (None, '#') if is_word_start => is_comment = true,
            // A line that goes on.
            (None | Some('"'), '\\') => match letters.next() {
                Some('\n') | None => {}
                Some(next) => push(&mut commands, &[letter, next]),
            },
            // `2>&1`, and `&>` of some shells.
            (None, '>' | '<') if letters.peek() == Some(&'&') => {
                letters.next();
                push(&mut commands, &[letter, '&']);
            }
            (None, '&') if letters.peek() == Some(&'>') => {
                letters.next();
                push(&mut commands, &[letter, '>']);
                continue;
            }
            (None, _) if ends => commands.push(String::new()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                push(&mut commands, &[letter]);
            }
            (Some(open), _) if open == letter => {
                quote = None;
                push(&mut commands, &[letter]);
            }
            _ => push(&mut commands, &[letter]),
        }
        is_word_start = quote.is_none() && (letter.is_whitespace() || ends);
        // What was put into the background is not how the script ends: it goes on, and waits for it or not.
        if quote.is_none() && letter == '&' && letters.peek() != Some(&'&') && !is_joined(&commands) {
            commands.extend(["&".to_owned(), String::new()]);
        }
    }
    commands.into_iter().rev().find(|command| !command.trim().is_empty()).unwrap_or_default()
}

/// Whether the command that ended last is empty, as between the two letters of `&&`.
fn is_joined(commands: &[String]) -> bool {
    matches!(commands, [.., before, _] if before.trim().is_empty())
}

fn push(commands: &mut [String], letters: &[char]) {
    if let Some(last) = commands.last_mut() {
        last.extend(letters);
    }
}

/// Whether a command hands the process over.
pub(super) fn is_exec(command: &str) -> bool {
    command.split_whitespace().next() == Some("exec") && command.split_whitespace().nth(1).is_some()
}

/// The words of a text, whatever is quoted in it.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '(' | ')' | '`'))
        .filter(|word| !word.is_empty())
}

/// The program's own name in its path.
pub(super) fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_a_shell_is_found_behind_its_options() {
        for (words, script) in [
            (&["sh", "-c", "x"][..], Some("x")),
            (&["/bin/bash", "-euo", "pipefail", "-c", "x"], Some("x")),
            (&["/bin/bash", "-euxc", "x", "ignored"], Some("x")),
            (&["tini", "-s", "--", "/bin/sh", "-ec", "x"], Some("x")),
            (&["bash", "/entrypoint.sh", "-c"], None),
            (&["buildkite-agent", "start"], None),
            (&["sh"], None),
        ] {
            assert_eq!(of_shell(words), script, "{words:?}");
        }
    }

    #[test]
    fn a_script_ends_in_exec_or_it_does_not() {
        for (script, is_good) in [
            ("exec buildkite-agent start", true),
            ("set -e\nprepare\nexec buildkite-agent start \\\n  --tags \"a;b\"\n\n# the end; really\n", true),
            ("prepare && exec buildkite-agent start 2>&1", true),
            ("prepare; exec \"$@\"", true),
            ("exec sh -c 'a; b'", true),
            ("prepare & exec buildkite-agent start &> log", true),
            ("buildkite-agent start", false),
            ("exec", false),
            ("exec buildkite-agent start &", false),
            ("exec buildkite-agent start & wait", false),
            ("exec buildkite-agent start | tee log", false),
            ("exec buildkite-agent start; echo done", false),
            ("echo 'exec buildkite-agent start'", false),
            ("echo x # exec buildkite-agent start", false),
            ("if x; then exec y; fi", false),
            ("", false),
        ] {
            assert_eq!(is_exec(&last_command(script)), is_good, "{script:?} ends in {:?}", last_command(script));
        }
    }
}
