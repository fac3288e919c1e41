//! The picture itself: SVG, as text. White beneath everything, so that it can be read on any page.

use std::fmt::{Display, Write};

use modelyard_core::{Timestamp, Weight};

use super::layout::{fitting, spread, width, wrap};
use super::scale::Scale;
use super::story::{Change, Decided, Key, Story, Tone, Wait};
use crate::client::output::count;
use crate::client::when;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 876.0;
const SHARES: f64 = 200.0;
const LANE: f64 = 20.0;
const LINE: f64 = 17.0;
const TEXT: f64 = 12.0;
const SMALL: f64 = 11.0;

const INK: &str = "#1f2328";
const GREY: &str = "#59636e";
const RULE: &str = "#d1d9e0";
/// Light enough for dark words on them, and apart for those who do not tell red from green.
const COLOURS: [&str; 8] = ["#8ab6e8", "#f2b66d", "#8fd0a8", "#d7a8e0", "#e7dd7a", "#e79a9a", "#9fd9de", "#c9b79c"];

/// Further ones have no words, only their colour.
const MOST_VERSIONS: usize = 10;
/// The latest ones are shown.
const MOST_DECISIONS: usize = 20;
const BADGE: f64 = 8.0;
/// Of the column with the times of decisions.
const TIME: f64 = 66.0;

pub(super) fn svg(story: &Story) -> String {
    let left_out = story.decisions.len().saturating_sub(MOST_DECISIONS);
    let drawing = Drawing {
        story,
        scale: Scale::new(story.from, story.until, LEFT, RIGHT - LEFT),
        decisions: &story.decisions[left_out..],
        left_out,
        body: String::new(),
    };
    drawing.finish()
}

struct Drawing<'a> {
    story: &'a Story,
    scale: Scale,
    decisions: &'a [Decided],
    left_out: usize,
    body: String,
}

impl Drawing<'_> {
    /// From top to bottom.
    fn finish(mut self) -> String {
        self.title();
        let badges = self.legend(68.0) + 20.0;
        let top = badges + 20.0;
        self.shares(top);
        let bottom = self.lane(top + SHARES);
        self.axis(top, bottom);
        self.badges(badges, top, bottom);
        let height = self.sentences(bottom + 46.0);
        let name = escaped(&self.story.name);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"{TEXT}\" role=\"img\">\n\
             <title>{name}: traffic by version, and what was decided</title>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn title(&mut self) {
        let title = format!("{}: traffic by version, and what was decided", self.story.name);
        self.element("text", &[("x", &LEFT), ("y", &26), ("font-size", &16), ("fill", &INK)], Some(&title));
        let from = self.story.from;
        let is_whole = from.as_millis() % 1000 == 0;
        let from = if is_whole { when::clock(from) } else { from.to_string() };
        let unit = format!("{} since {from}", self.scale.unit());
        self.text(LEFT, 44.0, GREY, "start", &unit);
    }

    /// Answers with where it ends.
    fn legend(&mut self, top: f64) -> f64 {
        let (mut x, mut y) = (LEFT, top);
        for (index, version) in self.story.versions.iter().enumerate().take(MOST_VERSIONS) {
            let mut words = called(&version.key);
            if !version.variants.is_empty() {
                words += &format!(" ({})", version.variants.join(", "));
            }
            let words = wrap(&words, TEXT, RIGHT - LEFT - 20.0, 1).concat();
            let needs = 20.0 + width(&words, TEXT);
            if x + needs > RIGHT && x > LEFT {
                (x, y) = (LEFT, y + LINE);
            }
            self.rect(x, y - 10.0, 12.0, 12.0, colour(index), None);
            self.text(x + 17.0, y, INK, "start", &words);
            x += needs + 14.0;
        }
        let more = self.story.versions.len().saturating_sub(MOST_VERSIONS);
        if more > 0 {
            self.text(x, y, GREY, "start", &format!("and {more} more"));
        }
        y
    }

    fn shares(&mut self, top: f64) {
        let bottom = top + SHARES;
        for (percent, y) in [(0, bottom), (25, top + 150.0), (50, top + 100.0), (75, top + 50.0), (100, top)] {
            self.line((LEFT, y), (RIGHT, y), RULE, false);
            self.text(LEFT - 6.0, y + 4.0, GREY, "end", &format!("{percent} %"));
        }
        let story = self.story;
        let ends = story.changes.iter().skip(1).map(|change| change.at).chain([story.until]);
        for (change, until) in story.changes.iter().zip(ends) {
            self.stack(change, until, bottom);
        }
        if story.changes.iter().all(|change| change.shares.is_empty()) {
            let middle = f64::midpoint(LEFT, RIGHT);
            self.text(middle, top + 90.0, GREY, "middle", "nothing served in this time");
        }
    }

    /// The latest version at the bottom, where its share is read off the axis.
    fn stack(&mut self, change: &Change, until: Timestamp, bottom: f64) {
        let (x, end) = (self.scale.x(change.at), self.scale.x(until));
        let mut y = bottom;
        for (index, version) in self.story.versions.iter().enumerate().rev() {
            let Some(share) = change.shares.get(&version.key).map(|bp| f64::from(*bp) / 10_000.0) else { continue };
            let high = SHARES * share;
            y -= high;
            let percent = told(change.shares[&version.key]);
            let words = format!("{} {percent}", called(&version.key));
            self.rect(x, y, end - x, high, colour(index), Some(&words));
            let spaces = self.spaces(x, end);
            let fit =
                |(from, to): (f64, f64)| Some((from, fitting([words.clone(), percent.clone()], TEXT, to - from)?));
            if let Some((x, words)) = spaces.into_iter().find_map(fit).filter(|_| high >= 14.0) {
                self.text(x, y + high.min(34.0) / 2.0 + 4.0, INK, "start", &words);
            }
        }
    }

    /// The spaces for words from one place to another, between the lines of decisions.
    fn spaces(&self, from: f64, to: f64) -> Vec<(f64, f64)> {
        let lines = self.decisions.iter().map(|decided| self.scale.x(decided.at));
        let ends: Vec<f64> = lines.filter(|x| (from + 1.0..to).contains(x)).chain([to]).collect();
        let starts = [from].into_iter().chain(ends.iter().copied());
        starts.zip(&ends).map(|(start, end)| (start + 5.0, end - 3.0)).collect()
    }

    /// Versions that wait without traffic. Answers with where it ends.
    fn lane(&mut self, top: f64) -> f64 {
        let story = self.story;
        if story.waits.is_empty() {
            return top;
        }
        self.small(LEFT - 6.0, top + LANE - 4.0, GREY, "end", "no traffic");
        let nexts = story.waits.iter().skip(1).map(|wait| self.scale.x(wait.from)).chain([RIGHT]).collect::<Vec<_>>();
        for (wait, next) in story.waits.iter().zip(nexts) {
            self.wait(wait, next, top + 4.0);
        }
        top + LANE + 4.0
    }

    /// Its words stand within it, or behind it where there is room before the next one.
    fn wait(&mut self, wait: &Wait, next: f64, y: f64) {
        let (x, end) = (self.scale.x(wait.from), self.scale.x(wait.until));
        let index = self.story.versions.iter().position(|version| wait.key.as_ref() == Some(&version.key));
        let who = wait.key.as_ref().map_or_else(|| "variants".into(), called);
        let words = format!("{who}: {}", wait.what);
        self.rect(x, y, (end - x).max(2.0), LANE - 4.0, index.map_or(RULE, colour), Some(&words));
        let within = self.spaces(x, end).into_iter();
        let mut spaces = within.chain(self.spaces(end.max(x + 2.0), next).into_iter().take(1));
        let words = [words, wait.what.clone()];
        let fit = |(from, to): (f64, f64)| Some((from, fitting(words.clone(), SMALL, to - from)?));
        if let Some((x, words)) = spaces.find_map(fit) {
            self.small(x, y + 12.0, INK, "start", &words);
        }
    }

    fn axis(&mut self, top: f64, bottom: f64) {
        self.line((LEFT, top), (LEFT, bottom), GREY, false);
        self.line((LEFT, bottom), (RIGHT, bottom), GREY, false);
        for at in self.scale.ticks() {
            let x = self.scale.x(at);
            self.line((x, bottom), (x, bottom + 4.0), GREY, false);
            self.text(x, bottom + 17.0, GREY, "middle", &self.scale.label(at));
        }
    }

    /// A number above the moment of each decision, and a line down from it.
    fn badges(&mut self, y: f64, top: f64, bottom: f64) {
        let moments: Vec<f64> = self.decisions.iter().map(|decided| self.scale.x(decided.at)).collect();
        let places = spread(&moments, 2.0 * BADGE + 2.0, LEFT, RIGHT);
        let decisions = self.decisions;
        for (n, (decided, (moment, place))) in decisions.iter().zip(moments.into_iter().zip(places)).enumerate() {
            self.line((place, y + BADGE), (moment, top), INK, false);
            self.line((moment, top), (moment, bottom), INK, true);
            self.badge(place, y, n, decided.tone);
        }
    }

    fn badge(&mut self, x: f64, y: f64, n: usize, tone: Tone) {
        let fill = match tone {
            Tone::Plain => GREY,
            Tone::Good => "#1f7a45",
            Tone::Bad => "#b3261e",
        };
        let (cx, cy) = (number(x), number(y));
        self.element("circle", &[("cx", &cx), ("cy", &cy), ("r", &BADGE), ("fill", &fill)], None);
        self.element(
            "text",
            &[
                ("x", &cx),
                ("y", &number(y + 3.5)),
                ("font-size", &10),
                ("font-weight", &"bold"),
                ("fill", &"#ffffff"),
                ("text-anchor", &"middle"),
            ],
            Some(&(self.left_out + n + 1).to_string()),
        );
    }

    /// The decisions in words. Answers with the height of the whole.
    fn sentences(&mut self, top: f64) -> f64 {
        let mut y = top;
        if self.left_out > 0 {
            let left_out = format!("{} before these: see `events`", count(self.left_out as u64, "decision"));
            self.text(LEFT + TIME, y, GREY, "start", &left_out);
            y += LINE;
        }
        let decisions = self.decisions;
        for (n, decided) in decisions.iter().enumerate() {
            self.badge(LEFT - 6.0 - BADGE, y - 4.0, n, decided.tone);
            self.text(LEFT, y, GREY, "start", &self.scale.tell(decided.at));
            for line in decided.sentences.iter().flat_map(|s| wrap(s, TEXT, RIGHT - LEFT - TIME, 3)) {
                self.text(LEFT + TIME, y, INK, "start", &line);
                y += LINE;
            }
            y += 4.0;
        }
        y
    }

    // ---- elements --------------------------------------------------------------------------------------------------

    fn text(&mut self, x: f64, y: f64, fill: &str, anchor: &str, words: &str) {
        let (x, y) = (number(x), number(y));
        self.element("text", &[("x", &x), ("y", &y), ("fill", &fill), ("text-anchor", &anchor)], Some(words));
    }

    fn small(&mut self, x: f64, y: f64, fill: &str, anchor: &str, words: &str) {
        let (x, y) = (number(x), number(y));
        let place: [(&str, &dyn Display); 2] = [("x", &x), ("y", &y)];
        let style: [(&str, &dyn Display); 3] = [("fill", &fill), ("text-anchor", &anchor), ("font-size", &SMALL)];
        self.element("text", &[&place[..], &style].concat(), Some(words));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str, is_dotted: bool) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        let dots = if is_dotted { "2 3" } else { "none" };
        let ends: [(&str, &dyn Display); 4] = [("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)];
        self.element("line", &[&ends[..], &[("stroke", &stroke), ("stroke-dasharray", &dots)]].concat(), None);
    }

    /// With a hint for who points at it.
    fn rect(&mut self, x: f64, y: f64, wide: f64, high: f64, fill: &str, hint: Option<&str>) {
        let [x, y, wide, high] = [x, y, wide, high].map(number);
        let hint = hint.map_or_else(String::new, |hint| format!("<title>{}</title>", escaped(hint)));
        // Writing to a String does not fail.
        writeln!(
            self.body,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\" fill=\"{fill}\" \
             shape-rendering=\"crispEdges\">{hint}</rect>"
        )
        .ok();
    }

    fn element(&mut self, name: &str, attributes: &[(&str, &dyn Display)], words: Option<&str>) {
        let attributes: String = attributes.iter().map(|(key, value)| format!(" {key}=\"{value}\"")).collect();
        match words {
            Some(words) => writeln!(self.body, "<{name}{attributes}>{}</{name}>", escaped(words)).ok(),
            None => writeln!(self.body, "<{name}{attributes}/>").ok(),
        };
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn called((model, version): &Key) -> String {
    match model {
        Some(model) => format!("version {version} of {model}"),
        None => format!("version {version}"),
    }
}

/// Basis points, as people read them. Shares of variants with one version are one share.
fn told(bp: u32) -> String {
    let weight = u16::try_from(bp).ok().and_then(|bp| Weight::from_basis_points(bp).ok());
    weight.unwrap_or(Weight::FULL).to_string()
}

/// To a tenth of a pixel.
fn number(n: f64) -> f64 {
    (n * 10.0).round() / 10.0
}

/// What XML cannot hold, control characters, becomes a space.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push(' '),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
