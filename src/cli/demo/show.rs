//! Where the news goes: onto a screen, into lines, or nowhere.

use std::io::{self, Write as _};

use tokio::sync::mpsc;

use super::screen::Screen;
use crate::simulate::news::News;

/// One of them.
pub(super) enum Show {
    /// Standard output is a terminal.
    Screen(Screen),
    /// It is a pipe or a file: these lines first, then those of the story.
    Lines(Vec<String>),
    /// It is kept for the summary.
    Nothing,
}

impl Show {
    /// Takes news until there is none any more. For a thread of its own.
    pub(super) fn all(self, mut news: mpsc::Receiver<News>) -> io::Result<()> {
        match self {
            Self::Screen(mut screen) => {
                screen.begin()?;
                while let Some(piece) = news.blocking_recv() {
                    screen.take_in(piece)?;
                }
                screen.end()
            }
            Self::Lines(intro) => {
                let mut out = io::stdout().lock();
                for line in intro {
                    writeln!(out, "{line}")?;
                }
                while let Some(piece) = news.blocking_recv() {
                    if let News::Line(line) = piece {
                        writeln!(out, "{line}")?;
                    }
                }
                Ok(())
            }
            Self::Nothing => {
                while news.blocking_recv().is_some() {}
                Ok(())
            }
        }
    }
}
