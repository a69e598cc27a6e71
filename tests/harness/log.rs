//! What a process says, line by line, to be waited for and to be judged.

use std::io::{BufRead, BufReader, Read};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;
use tokio::time::timeout;

use super::{PATIENCE, within};

/// The lines of one pipe so far.
pub struct Log {
    said: watch::Receiver<Said>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    over: bool,
}

impl Log {
    /// Follows a pipe to its end.
    pub fn follow(pipe: impl Read + Send + 'static) -> Self {
        let (say, said) = watch::channel(Said::default());
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                say.send_modify(|said| said.lines.push(line));
            }
            say.send_modify(|said| said.over = true);
        });
        let reader = Some(reader);
        Self { said, reader }
    }

    /// Everything there will ever be; for a process that has ended.
    pub fn all(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.lines()
    }

    /// Everything so far.
    pub fn lines(&self) -> Vec<String> {
        self.said.borrow().lines.clone()
    }

    /// Waits for a line from number `start` on that satisfies `wanted`; `None` where the pipe ends first.
    pub async fn line(&self, start: usize, wanted: impl Fn(&str) -> bool) -> Option<(usize, String)> {
        let find = |said: &Said| {
            let numbered = said.lines.iter().enumerate().skip(start);
            numbered
                .filter(|(_, line)| wanted(line))
                .map(|(at, line)| (at, line.clone()))
                .next()
        };
        let mut said = self.said.clone();
        let found = said.wait_for(|said| said.over || find(said).is_some());
        match timeout(PATIENCE, found).await {
            Ok(said) => find(&said.expect("the reader ends with `over`")),
            Err(_) => panic!("waited {PATIENCE:?} for a line; so far:\n{}", self.lines().join("\n")),
        }
    }

    /// Waits for the end of the pipe.
    pub async fn end(&self) {
        let mut said = self.said.clone();
        within("the end of a process", said.wait_for(|said| said.over))
            .await
            .expect("the reader ends with `over`");
    }
}
