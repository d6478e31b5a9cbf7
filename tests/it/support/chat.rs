//! `conclave-chat` as a person uses it: through pipes, and on a terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::termios::LocalModes;

use super::{DEADLINE, PASSWORD};

/// A `conclave-chat` at the end of two pipes.
pub(crate) struct Chat {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Chat {
    /// A chat of `name`, whose keys are below `home`.
    pub(crate) fn start(server: &str, home: &Path, name: &str, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_conclave-chat"))
            .args(["--server", server, "--name", name, "--key-bits", "2048", "--home"])
            .arg(home)
            .args(more)
            .env("CONCLAVE_CHAT_PASSWORD", PASSWORD)
            .env("CONCLAVE_CHAT_PASSPHRASE", "a passphrase")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the chat's binary");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Self { child, input, lines }
    }

    /// One line of input.
    pub(crate) fn types(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("an open pipe");
    }

    /// Waits for a line with this in it.
    pub(crate) fn shows(&self, text: &str) -> String {
        let mut shown = Vec::new();
        loop {
            match self.lines.recv_timeout(2 * DEADLINE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => shown.push(line),
                Err(_) => panic!("expected {text:?}, got:\n{}", shown.join("\n")),
            }
        }
    }

    /// Waits for its end, which is a failure; what it said of that.
    pub(crate) fn fails(mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(!self.child.wait().expect("its end").success());
        said
    }

    /// Says goodbye.
    pub(crate) fn quits(mut self) {
        self.types("/quit");
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `conclave-chat` on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    keyboard: std::fs::File,
    output: mpsc::Receiver<Vec<u8>>,
    /// All that came to the screen, without what moves the cursor and colours.
    screen: String,
    /// What came and is not yet whole.
    rest: Vec<u8>,
    seen: usize,
}

impl Terminal {
    /// A chat of `name`, whose keys are below `home`.
    pub(crate) fn start(server: &str, home: &Path, name: &str) -> Self {
        let (terminal, end) = pty_process::blocking::open().expect("a terminal");
        terminal.resize(pty_process::Size::new(50, 200)).expect("its size");
        let child = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_conclave-chat"))
            .args(["--server", server, "--name", name, "--key-bits", "2048", "--home"])
            .arg(home)
            .env("TERM", "xterm-256color")
            .env_remove("CONCLAVE_CHAT_PASSWORD")
            .env_remove("CONCLAVE_CHAT_PASSPHRASE")
            .spawn(end)
            .expect("the chat's binary");
        let keyboard = std::fs::File::from(std::os::fd::OwnedFd::from(terminal));
        let mut screen = keyboard.try_clone().expect("a second descriptor");
        let (tell, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the program is an error here.
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                if tell.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, output, screen: String::new(), rest: Vec::new(), seen: 0 }
    }

    /// Presses these keys.
    pub(crate) fn presses(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("an open terminal");
    }

    /// Answers this question once the terminal shows nothing of what is typed: the question may be seen a moment before.
    pub(crate) fn tells_secret(&mut self, question: &str, secret: &str) {
        self.shows(question);
        let until = Instant::now() + DEADLINE;
        let echoes = |keyboard: &std::fs::File| {
            rustix::termios::tcgetattr(keyboard).expect("a terminal").local_modes.contains(LocalModes::ECHO)
        };
        while echoes(&self.keyboard) {
            assert!(Instant::now() < until, "{question:?} shows what is typed");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.presses(&format!("{secret}\r"));
    }

    /// Waits for this text, behind what was waited for before.
    pub(crate) fn shows(&mut self, text: &str) {
        let until = Instant::now() + 2 * DEADLINE;
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                panic!("expected {text:?}, got:\n{}", &self.screen[self.seen..]);
            };
            self.rest.extend(bytes);
            self.take_in();
        }
    }

    /// All that the screen has shown.
    pub(crate) fn screen(&self) -> &str {
        &self.screen
    }

    /// Says goodbye.
    pub(crate) fn quits(mut self) {
        self.presses("/quit\r");
        self.ends();
    }

    /// Waits for a good end.
    pub(crate) fn ends(mut self) {
        assert!(self.child.wait().expect("its end").success());
    }

    /// Takes whole characters and sequences over to the screen.
    fn take_in(&mut self) {
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
        let mut taken = 0;
        while let Some(escape) = text[taken..].find('\u{1b}') {
            self.screen.push_str(&text[taken..taken + escape]);
            taken += escape;
            let behind = text[taken + 1..].strip_prefix('[');
            let Some(end) = behind.and_then(|behind| behind.find(|c: char| ('@'..='~').contains(&c))) else {
                self.rest.drain(..taken);
                return;
            };
            taken += 2 + end + 1;
        }
        self.screen.push_str(&text[taken..]);
        self.rest.drain(..whole);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
