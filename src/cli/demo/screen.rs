//! A table that moves, and the story below it: drawn anew in place, so that what stood on the terminal before stays.
//!
//! Nothing is hidden or switched that would have to be put back, however the program ends.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    time::Duration,
};

use crate::simulate::{
    news::{Frame, News, Row},
    tally::Agents,
};

/// Where the terminal does not say how large it is.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Lines of the story that are kept: no screen shows more.
const LINES_MAX: usize = 200;

/// The story gets at least so many lines, however many pools there are.
const STORY_LINES_MIN: usize = 3;

/// How wide the columns left of the bar are; [`head`] and [`numbers`] go together.
const BAR_AT: usize = 59;

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// The screen.
pub(super) struct Screen {
    intro: Vec<String>,
    has_colors: bool,
    /// What was told, the newest last.
    lines: VecDeque<String>,
    frame: Frame,
    size: (usize, usize),
    /// How many lines of the last drawing stand above the cursor.
    drawn: usize,
}

impl Screen {
    pub(super) fn new(intro: Vec<String>, has_colors: bool) -> Self {
        let (lines, frame) = (VecDeque::new(), Frame::default());
        Self { intro, has_colors, lines, frame, size: USUAL_SIZE, drawn: 0 }
    }

    /// What one should know before; it stays above the table.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.size = size();
        self.intro = self.intro.iter().flat_map(|line| wrapped("", line, self.size.0)).collect();
        let mut out = io::stdout().lock();
        for line in &self.intro {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    pub(super) fn take_in(&mut self, news: News) -> io::Result<()> {
        match news {
            News::Line(line) => {
                self.tell(line);
                Ok(())
            }
            News::Frame(frame) => {
                self.frame = frame;
                self.draw()
            }
        }
    }

    fn tell(&mut self, line: String) {
        // The table shows it, and the decision before it was told.
        if line.contains("   scales ") {
            return;
        }
        if let Some(sum) = self.lines.back().and_then(|last| events_together(last, &line)) {
            self.lines.pop_back();
            self.lines.push_back(sum);
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines are drawn as well.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.draw()
    }

    fn draw(&mut self) -> io::Result<()> {
        let size = size();
        let back = match (self.size == size, self.drawn) {
            (_, 0) => String::new(),
            (true, drawn) => format!("\x1b[{drawn}A\r"),
            (false, _) => {
                // Lines that were broken anew by the terminal cannot be counted, so the intro goes as well.
                self.intro.clear();
                "\x1b[2J\x1b[H".to_owned()
            }
        };
        self.size = size;
        let (width, height) = size;
        // The intro stays where it fits, and the line of the cursor is left free.
        let room = height.saturating_sub(1);
        let room = if room > 2 * self.intro.len() { room - self.intro.len() } else { room };
        let drawing = drawing(&self.frame, &self.lines, (width, room));
        let colored = |(color, line): &Line| match color {
            Some(color) if self.has_colors => format!("\x1b[{color}m{line}\x1b[0m\x1b[K\n"),
            _ => format!("{line}\x1b[K\n"),
        };
        let text: String = std::iter::once(back).chain(drawing.iter().map(colored)).collect();
        self.drawn = drawing.len();
        let mut out = io::stdout().lock();
        write!(out, "{text}\x1b[J")?;
        out.flush()
    }
}

fn size() -> (usize, usize) {
    // A terminal that nobody told its size says 0.
    let size = terminal_size::terminal_size_of(io::stdout()).filter(|(width, height)| width.0 > 0 && height.0 > 0);
    size.map_or(USUAL_SIZE, |(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// A burst makes many lines of few events each; one is enough.
fn events_together(last: &str, line: &str) -> Option<String> {
    let count = |line: &str| {
        let (stamp, text) = line.split_once(" events of ")?;
        let count: u32 = text.strip_suffix(" jobs arrive")?.parse().ok()?;
        Some((stamp.to_owned(), count))
    };
    let ((stamp, before), (_, more)) = (count(last)?, count(line)?);
    Some(format!("{stamp} events of {} jobs arrive", before.saturating_add(more)))
}

type Line = (Option<&'static str>, String);

/// The whole of it within so many columns and lines.
fn drawing(frame: &Frame, story: &VecDeque<String>, (width, height): (usize, usize)) -> Vec<Line> {
    let rule = |title: &str| {
        let title = format!("── {title} ");
        let rest = width.saturating_sub(title.chars().count());
        (Some(DIM), title + &"─".repeat(rest))
    };
    let mut lines = vec![rule(&format!("{} of {}", clock(frame.since), clock(frame.lasts))), (Some(BOLD), head())];
    let most = frame.rows.iter().map(|row| total(row.agents)).max().unwrap_or_default();
    let table_max = height.saturating_sub(STORY_LINES_MIN + 1);
    let mut left_out = 0;
    for row in &frame.rows {
        if lines.len() + 2 > table_max {
            left_out += 1;
            continue;
        }
        let bar = bar(row.agents, most, width.saturating_sub(BAR_AT));
        lines.push((None, numbers(row) + &bar));
        let color = if row.is_trouble { YELLOW } else { DIM };
        let reason = if row.reason.is_empty() { "nothing changed yet" } else { &row.reason };
        lines.push((Some(color), format!("  └ {reason}")));
    }
    let more =
        if left_out > 0 { format!("the story ({left_out} more pools do not fit)") } else { "the story".to_owned() };
    lines.push(rule(&more));
    let room = height.saturating_sub(lines.len());
    let mut told: Vec<Line> = story.iter().rev().take(room).rev().flat_map(|line| story_lines(line, width)).collect();
    told.drain(..told.len().saturating_sub(room));
    lines.extend(told);
    lines.truncate(height);
    for (_, line) in &mut lines {
        cut(line, width);
    }
    lines
}

fn head() -> String {
    let jobs = format!("{:<12}{:>7}{:>8} │", "pool", "queued", "running");
    format!("{jobs}{:>5}{:>5}{:>6}{:>6} │{:>5}", "busy", "idle", "start", "drain", "want")
}

fn numbers(row: &Row) -> String {
    let Agents { busy, idle, starting, draining } = row.agents;
    let mut name = if row.pool == row.queue { row.pool.clone() } else { format!("{}:{}", row.queue, row.pool) };
    cut(&mut name, 12);
    let jobs = format!("{name:<12}{:>7}{:>8} │", row.queued, row.running);
    format!("{jobs}{busy:>5}{idle:>5}{starting:>6}{draining:>6} │{:>5} ", row.desired)
}

/// A cell for each pod, or for several where there are more than cells; what is there at all is seen.
fn bar(agents: Agents, most: u32, width: usize) -> String {
    let Agents { busy, idle, starting, draining } = agents;
    let parts = [('█', busy), ('░', idle), ('·', starting), ('▿', draining)];
    // Each part may be rounded up by a cell.
    let cells = u32::try_from(width.saturating_sub(parts.len() - 1)).unwrap_or_default();
    if cells == 0 {
        return String::new();
    }
    let each = most.div_ceil(cells).max(1);
    let part = |(symbol, count): (char, u32)| {
        std::iter::repeat_n(symbol, usize::try_from(count.div_ceil(each)).unwrap_or_default())
    };
    parts.into_iter().flat_map(part).collect()
}

const fn total(agents: Agents) -> u32 {
    let Agents { busy, idle, starting, draining } = agents;
    busy.saturating_add(idle).saturating_add(starting).saturating_add(draining)
}

/// A line of the transcript. What the story says is wrapped; the rest is cut.
fn story_lines(line: &str, width: usize) -> Vec<Line> {
    // Nobody watches for an hour.
    let line = line.strip_prefix("00:").unwrap_or(line);
    let Some((stamp, text)) = line.split_once(" * ") else {
        let is_controllers = line.split_once(' ').is_some_and(|(_, text)| text.starts_with("  "));
        return vec![(is_controllers.then_some(CYAN), line.to_owned())];
    };
    wrapped(stamp, text, width).into_iter().map(|line| (Some(GREEN), line)).collect()
}

/// In lines of so many columns, the first after `stamp`, the others below it.
fn wrapped(stamp: &str, text: &str, width: usize) -> Vec<String> {
    let columns = |text: &str| text.chars().count();
    let indent = " ".repeat(columns(stamp));
    let mut lines = vec![stamp.to_owned()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let is_begun = columns(line) > indent.len();
        if is_begun && columns(line) + 1 + columns(word) > width {
            lines.push(if stamp.is_empty() { word.to_owned() } else { format!("{indent} {word}") });
        } else {
            let space = if is_begun || !stamp.is_empty() { " " } else { "" };
            line.push_str(space);
            line.push_str(word);
        }
    }
    lines
}

fn clock(since: Duration) -> String {
    format!("{:02}:{:02}", since.as_secs() / 60, since.as_secs() % 60)
}

/// Cuts it to so many columns; whoever reads should see that it was longer.
fn cut(line: &mut String, width: usize) {
    if line.chars().count() > width {
        let kept = width.saturating_sub(1);
        *line = line.chars().take(kept).chain(std::iter::once('…')).take(width).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pool: &str, busy: u32) -> Row {
        Row {
            pool: pool.to_owned(),
            queue: pool.to_owned(),
            queued: 12,
            running: busy,
            agents: Agents { busy, idle: 1, starting: 2, draining: 3 },
            desired: 15,
            reason: "a reason that is by far longer than anybody's terminal will ever be, and then some".to_owned(),
            is_trouble: false,
        }
    }

    fn drawn(rows: usize, story: &[&str], size: (usize, usize)) -> Vec<String> {
        let rows = (0..rows).map(|number| row(&format!("pool-{number}"), 40)).collect();
        let frame = Frame { since: Duration::from_secs(61), lasts: Duration::from_mins(2), rows };
        let story = story.iter().map(|line| (*line).to_owned()).collect();
        drawing(&frame, &story, size).into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn a_drawing_stays_within_its_columns_and_lines() {
        let story = [
            "00:00:01.0 * A sentence that goes on for longer than a narrow terminal is wide.",
            "00:00:02.0   creates x",
        ];
        for rows in [0, 1, 4, 40] {
            for size in [(80, 19), (40, 10), (20, 5), (1, 1), (0, 0)] {
                let lines = drawn(rows, &story, size);
                assert!(lines.len() <= size.1, "{size:?}: {lines:#?}");
                assert!(lines.iter().all(|line| line.chars().count() <= size.0), "{size:?}: {lines:#?}");
            }
        }
    }

    #[test]
    fn head_and_numbers_stand_below_each_other() {
        assert_eq!(numbers(&row("linux", 40)).chars().count(), BAR_AT);
        assert_eq!(head().chars().count() + 1, BAR_AT);
        let lines = drawn(1, &[], (80, 19));
        assert!(lines[0].starts_with("── 01:01 of 02:00 ─"), "{lines:#?}");
        assert_eq!(lines[2], "pool-0           12      40 │   40    1     2     3 │   15 ██████████████░·▿");
    }

    #[test]
    fn pools_that_do_not_fit_are_counted_and_the_story_keeps_its_lines() {
        let lines = drawn(40, &["00:00:01.0 a", "00:00:02.0 b", "00:00:03.0 c", "00:00:04.0 d"], (80, 19));
        assert!(lines.iter().any(|line| line.contains("more pools do not fit")), "{lines:#?}");
        assert_eq!(lines[lines.len() - 3..], ["00:02.0 b", "00:03.0 c", "00:04.0 d"]);
    }

    #[test]
    fn events_of_a_burst_are_one_line() {
        let mut screen = Screen::new(Vec::new(), false);
        for line in [
            "1 events of 2 jobs arrive",
            "2 events of 3 jobs arrive",
            "3   scales x to 4",
            "4 events of 1 jobs arrive",
            "5 x",
        ] {
            screen.tell(line.to_owned());
        }
        assert_eq!(screen.lines, ["1 events of 6 jobs arrive", "5 x"]);
    }

    #[test]
    fn what_the_story_says_is_wrapped_under_its_own_beginning() {
        let lines = story_lines("00:00:01.0 * one two three", 15);
        assert_eq!(lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), ["00:01.0 one two", "        three"]);
        assert_eq!(wrapped("", "one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("", "extraordinary", 8), ["extraordinary"]);
    }
}
