//! Charts as inline SVG: lines, bars, histograms. Knows numbers and names only.
//!
//! Colours and dashes are classes (`s0` to `s7`) that the page's style gives a value on both grounds;
//! every line has its name beside its end, so that nothing hangs on colour alone.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::report::duration;

/// So many colours, and no more lines in one chart.
pub(super) const COLOURS: usize = 8;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 52.0;
/// Names nearer than this would lie on one another.
const NAME_GAP: f64 = 15.0;
/// Characters of a name that fit beside a chart.
const NAME_CHARS: usize = 34;

/// For text and attributes of XML; what XML cannot hold is shown as a question mark.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' => safe.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}

/// How numbers become places along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    Log,
}

/// One axis: its name with its unit, and how its numbers are written.
pub(super) struct Axis {
    pub(super) name: &'static str,
    pub(super) scale: Scale,
    pub(super) text: fn(f64) -> String,
    /// Marks, where they are not round numbers.
    pub(super) ticks: Option<Vec<f64>>,
}

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Those of the points that are shown as such; all where this is `None`.
    pub(super) marks: Option<Vec<(f64, f64)>>,
}

/// Numbers from `low` to `high` along so many pixels.
struct Along {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Along {
    fn of(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
        }
        match scale {
            Scale::Linear => (low, high) = (0.0, if high > 0.0 { high * 1.06 } else { 1.0 }),
            Scale::Log if low == high => (low, high) = (low / 2.0, high * 2.0),
            Scale::Log => {}
        }
        Self { scale, low, high, from, to }
    }

    fn part(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * self.part(value)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = self.high / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
                let step = step.into_iter().find(|s| *s >= rough).unwrap_or(rough);
                (0..=6).map(|n| f64::from(n) * step).filter(|t| *t <= self.high).collect()
            }
            Scale::Log => {
                let decades = (self.high / self.low).log10();
                let steps: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let (first, last) = (self.low.log10().floor(), self.high.log10().ceil());
                let powers = first as i32..=last as i32;
                powers
                    .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
                    .filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick))
                    .collect()
            }
        }
    }
}

fn open(title: &str, said: &str, height: f64) -> String {
    format!(
        "<figure><figcaption>{title}</figcaption><svg xmlns=\"http://www.w3.org/2000/svg\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}. {said}\">\n",
        title = escape(title),
        said = escape(said),
    )
}

const CLOSE: &str = "</svg></figure>\n";

fn text(svg: &mut String, x: f64, y: f64, class: &str, what: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(what));
}

/// A name that may be too long for its place.
fn short(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS - 1).chain(['…']).collect()
}

/// Lines over two axes. Nothing where there is no point.
pub(super) fn lines(title: &str, x_axis: &Axis, y_axis: &Axis, lines: &[Line]) -> String {
    let drawable =
        |axis: &Axis, value: f64| value.is_finite() && (axis.scale == Scale::Linear || value > 0.0);
    let keep = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let good = |p: &&(f64, f64)| drawable(x_axis, p.0) && drawable(y_axis, p.1);
        points.iter().filter(good).copied().collect()
    };
    let kept: Vec<_> = lines
        .iter()
        .map(|line| {
            let points = keep(&line.points);
            let marks = line.marks.as_deref().map_or_else(|| points.clone(), keep);
            (line, points, marks)
        })
        .filter(|(_, points, _)| !points.is_empty())
        .take(COLOURS)
        .collect();
    if kept.is_empty() {
        return String::new();
    }
    let all = || kept.iter().flat_map(|(_, points, _)| points.iter());
    let x = Along::of(x_axis.scale, all().map(|p| p.0), LEFT, WIDTH - RIGHT);
    let y = Along::of(y_axis.scale, all().map(|p| p.1), HEIGHT - BOTTOM, TOP);
    let names: Vec<&str> = kept.iter().map(|(line, ..)| line.name.as_str()).collect();
    let said = format!("{} against {}: {}", y_axis.name, x_axis.name, names.join("; "));
    let mut svg = open(title, &said, HEIGHT);
    axes(&mut svg, (x_axis, &x), (y_axis, &y));
    let mut ends: Vec<(usize, f64)> = Vec::new();
    for (colour, (line, points, marks)) in kept.iter().enumerate() {
        let mut path = String::new();
        for (number, point) in points.iter().enumerate() {
            let letter = if number == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", x.at(point.0), y.at(point.1));
        }
        let _ = writeln!(svg, "<path class=\"line s{colour}\" d=\"{path}\"/>");
        for point in marks {
            let _ = writeln!(
                svg,
                "<circle class=\"s{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}</title></circle>",
                x.at(point.0),
                y.at(point.1),
                escape(&format!(
                    "{}: {} at {}",
                    line.name,
                    (y_axis.text)(point.1),
                    (x_axis.text)(point.0)
                )),
            );
        }
        ends.push((colour, points.last().map_or(0.0, |last| y.at(last.1))));
    }
    for (colour, at) in apart(ends) {
        let (line, points, _) = &kept[colour];
        let end = points.last().map_or((0.0, 0.0), |p| (x.at(p.0), y.at(p.1)));
        let beside = WIDTH - RIGHT + 14.0;
        let _ = writeln!(
            svg,
            "<path class=\"lead s{colour}\" d=\"M{:.1} {:.1}L{:.1} {at:.1}\"/>",
            end.0 + 5.0,
            end.1,
            beside - 3.0
        );
        text(&mut svg, beside, at + 4.0, &format!("name s{colour}"), &short(&line.name));
    }
    svg + CLOSE
}

/// Names beside the ends of their lines, pushed apart.
fn apart(mut ends: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut above = f64::MIN;
    for (_, at) in &mut ends {
        *at = at.max(above + NAME_GAP);
        above = *at;
    }
    let mut below = HEIGHT - BOTTOM + NAME_GAP;
    for (_, at) in ends.iter_mut().rev() {
        *at = at.min(below - NAME_GAP);
        below = *at;
    }
    ends
}

fn axes(svg: &mut String, (x_axis, x): (&Axis, &Along), (y_axis, y): (&Axis, &Along)) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in y_axis.ticks.clone().unwrap_or_else(|| y.ticks()) {
        let at = y.at(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
        text(svg, LEFT - 8.0, at + 4.0, "tick end", &(y_axis.text)(tick));
    }
    let inside = |tick: &f64| (-0.001..=1.001).contains(&x.part(*tick));
    for tick in x_axis.ticks.clone().unwrap_or_else(|| x.ticks()).iter().filter(|t| inside(t)) {
        let at = x.at(*tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
        text(svg, at, bottom + 18.0, "tick middle", &(x_axis.text)(*tick));
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
    text(svg, f64::midpoint(LEFT, right), HEIGHT - 8.0, "axis-name middle", x_axis.name);
    let middle = f64::midpoint(TOP, bottom);
    let _ = writeln!(
        svg,
        "<text class=\"axis-name middle\" transform=\"translate(16 {middle:.1}) rotate(-90)\">{}</text>",
        escape(y_axis.name)
    );
}

/// One bar, with the range of its rounds.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Behind the bar.
    pub(super) said: String,
    /// One of ours, as against one of the others.
    pub(super) ours: bool,
}

/// Bars to the right of their names. Nothing where there is no bar.
pub(super) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    const BAR: f64 = 26.0;
    if bars.is_empty() {
        return String::new();
    }
    let (left, right) = (250.0, WIDTH - 180.0);
    let bottom = TOP + BAR * bars.len() as f64;
    let x = Along::of(Scale::Linear, bars.iter().map(|bar| bar.high), left, right);
    let each: Vec<String> = bars.iter().map(|bar| format!("{} {}", bar.name, bar.said)).collect();
    let mut svg = open(title, &format!("{unit}: {}", each.join("; ")), bottom + BOTTOM);
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
        text(&mut svg, at, bottom + 18.0, "tick middle", &count(tick));
    }
    for (number, bar) in bars.iter().enumerate() {
        let y = TOP + BAR * number as f64;
        let class = if bar.ours { "s0" } else { "other" };
        text(&mut svg, left - 8.0, y + 17.0, "tick end", &short(&bar.name));
        let _ = writeln!(
            svg,
            "<rect class=\"bar {class}\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{}</title></rect>",
            y + 4.0,
            (x.at(bar.value) - left).max(1.0),
            BAR - 8.0,
            escape(&format!("{}: {}", bar.name, bar.said)),
        );
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            svg,
            "<path class=\"range\" d=\"M{:.1} {middle:.1}H{:.1}\"/>",
            x.at(bar.low),
            x.at(bar.high)
        );
        text(&mut svg, x.at(bar.high) + 8.0, y + 17.0, "tick", &bar.said);
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{left} {TOP}V{bottom}H{right}\"/>");
    text(&mut svg, f64::midpoint(left, right), bottom + 42.0, "axis-name middle", unit);
    svg + CLOSE
}

/// Steps of a histogram for each doubling.
const STEPS: f64 = 4.0;

/// Histograms of ns below one another, on one axis. Nothing where all are empty.
pub(super) fn histograms(title: &str, all: &[(String, &Histogram<u64>)]) -> String {
    const BAND: f64 = 74.0;
    let all: Vec<_> =
        all.iter().enumerate().filter(|(_, (_, histogram))| !histogram.is_empty()).collect();
    let (Some(low), Some(high)) = (
        all.iter().map(|(_, (_, h))| h.min_nz()).min(),
        all.iter().map(|(_, (_, h))| h.max()).max(),
    ) else {
        return String::new();
    };
    let step = |ns: u64| ((ns.max(1) as f64).log2() * STEPS).floor();
    let edge = |step: f64| (step / STEPS).exp2();
    let (right, bottom) = (WIDTH - RIGHT, TOP + BAND * all.len() as f64);
    let ends = [edge(step(low)), edge(step(high) + 1.0)];
    let x = Along::of(Scale::Log, ends.into_iter(), LEFT, right);
    let names: Vec<&str> = all.iter().map(|(_, (name, _))| name.as_str()).collect();
    let mut svg = open(title, &format!("Histograms of {}", names.join("; ")), bottom + BOTTOM);
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
        text(&mut svg, at, bottom + 18.0, "tick middle", &time(tick));
    }
    for (number, (place, (name, histogram))) in all.iter().enumerate() {
        // The colour that the same name has in other charts.
        let colour = place % COLOURS;
        let base = TOP + BAND * (number + 1) as f64;
        let buckets = buckets(histogram, step);
        let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1);
        for (at, count) in &buckets {
            let (from, to) = (edge(*at), edge(at + 1.0));
            let height = (*count as f64 / most as f64 * (BAND - 14.0)).max(1.0);
            let part = *count as f64 / histogram.len() as f64 * 100.0;
            let said = format!(
                "{name}: {} to {}: {count} ({part:.2} %)",
                duration(from as u64),
                duration(to as u64)
            );
            let _ = writeln!(
                svg,
                "<rect class=\"bar s{colour}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
                 height=\"{height:.1}\"><title>{}</title></rect>",
                x.at(from),
                base - height,
                (x.at(to) - x.at(from) - 0.5).max(0.5),
                escape(&said),
            );
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {base:.1}H{right}\"/>");
        let beside = right + 14.0;
        text(&mut svg, beside, base - 26.0, &format!("name s{colour}"), &short(name));
        let middle = duration(histogram.value_at_quantile(0.5));
        let said = format!("{} commits, half within {middle}", histogram.len());
        text(&mut svg, beside, base - 10.0, "tick", &said);
        text(&mut svg, LEFT - 8.0, base - BAND + 24.0, "tick end", &most.to_string());
    }
    text(
        &mut svg,
        f64::midpoint(LEFT, right),
        bottom + 42.0,
        "axis-name middle",
        "time of a commit (log)",
    );
    let middle = f64::midpoint(TOP, bottom);
    let _ = writeln!(
        svg,
        "<text class=\"axis-name middle\" transform=\"translate(16 {middle:.1}) rotate(-90)\">commits</text>"
    );
    svg + CLOSE
}

fn buckets(histogram: &Histogram<u64>, step: impl Fn(u64) -> f64) -> Vec<(f64, u64)> {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for value in histogram.iter_recorded() {
        let at = step(value.value_iterated_to());
        match buckets.last_mut() {
            Some((last, count)) if *last == at => *count += value.count_at_value(),
            _ => buckets.push((at, value.count_at_value())),
        }
    }
    buckets
}

/// A time in ns, for an axis.
pub(super) fn time(ns: f64) -> String {
    let text = duration(ns.round() as u64);
    let Some((number, unit)) = text.split_once(' ') else { return text };
    let unit = if unit == "us" { "µs" } else { unit };
    format!("{} {unit}", without_zeros(number))
}

/// A number, for an axis.
pub(super) fn count(value: f64) -> String {
    let (value, unit) = match value {
        _ if value >= 1e9 => (value / 1e9, " G"),
        _ if value >= 1e6 => (value / 1e6, " M"),
        _ if value >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{unit}", without_zeros(&crate::report::digits(value)))
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_become_markup() {
        assert_eq!(escape("<script>\"&'\u{1}"), "&lt;script&gt;&quot;&amp;&#39;?");
    }

    #[test]
    fn names_never_lie_on_one_another_nor_below_the_chart() {
        let ends = apart((0..COLOURS).map(|n| (n, 300.0)).collect());
        for pair in ends.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= NAME_GAP - 1e-9, "{ends:?}");
        }
        assert!(ends.iter().all(|(_, at)| (0.0..=HEIGHT - BOTTOM).contains(at)), "{ends:?}");
    }

    #[test]
    fn axes_have_round_numbers_inside_their_range() {
        for (low, high) in [(1.0, 2.0), (70.0, 9e6), (3e3, 3e3), (1.0, 1e9)] {
            for scale in [Scale::Linear, Scale::Log] {
                let along = Along::of(scale, [low, high].into_iter(), 0.0, 100.0);
                let ticks = along.ticks();
                assert!(!ticks.is_empty(), "{scale:?} {low} {high}");
                for tick in ticks {
                    assert!((-0.1..=100.1).contains(&along.at(tick)), "{tick} {low} {high}");
                }
            }
        }
        assert_eq!((time(1_000.0), time(2_500_000.0)), ("1 µs".to_owned(), "2.5 ms".to_owned()));
        assert_eq!((count(100.0), count(20_000.0)), ("100".to_owned(), "20 k".to_owned()));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let axis = |scale| Axis { name: "n", scale, text: count, ticks: None };
        let line = |points| Line { name: "a".to_owned(), points, marks: None };
        let (x, y) = (axis(Scale::Linear), axis(Scale::Log));
        assert_eq!(lines("t", &x, &y, &[line(vec![(1.0, 0.0), (f64::NAN, 1.0)])]), "");
        let svg = lines("t", &x, &y, &[line(vec![(1.0, 5.0), (2.0, 0.0)])]);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert_eq!((bars("t", "u", &[]), histograms("t", &[])), (String::new(), String::new()));
    }
}
