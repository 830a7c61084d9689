//! What `moebius bench` prints.

use super::table;
use moebius::bench::{KernelReport, Test, TestReport, Work};
use moebius::error::human_bytes;

/// Everything that was measured; one of the two is empty.
#[derive(Default)]
pub struct Figures {
    pub tests: Vec<TestReport>,
    /// By test, the slowest first.
    pub kernels: Vec<(Test, Vec<KernelReport>)>,
}

impl Figures {
    pub fn text(&self) -> String {
        let tables = self.tables().into_iter().map(|(title, header, rows)| {
            let title = title.map_or_else(String::new, |title| format!("{title}\n"));
            format!("{title}{}", table::aligned(&header, &rows))
        });
        tables.collect::<Vec<_>>().join("\n")
    }

    /// Every table as Markdown, below its title.
    pub fn markdown(&self) -> String {
        let tables = self.tables().into_iter().map(|(title, header, rows)| {
            let title = title.map_or_else(String::new, |title| format!("{title}\n\n"));
            format!("{title}{}", table::markdown(&header, &rows))
        });
        tables.collect::<Vec<_>>().join("\n")
    }

    /// One table; of kernels the first column is the test.
    pub fn csv(&self) -> String {
        if self.kernels.is_empty() {
            let (header, rows) = tests_table(&self.tests);
            return table::csv(&header, &rows);
        }
        let mut all = Vec::new();
        let mut header = vec!["test"];
        for (test, kernels) in &self.kernels {
            let (columns, rows) = kernels_table(kernels);
            header.splice(1.., columns);
            all.extend(rows.into_iter().map(|row| [vec![test.name()], row].concat()));
        }
        table::csv(&header, &all)
    }

    /// Whether anything was quicker than the device was found to be at best.
    pub fn exceed_roofs(&self) -> bool {
        let tests = self.tests.iter().flat_map(|test| [test.read_roof_share, test.fma_roof_share]).flatten();
        let kernels = self.kernels.iter().flat_map(|(_, kernels)| kernels.iter().map(|kernel| kernel.roof_share));
        tests.chain(kernels).any(|share| share > 1.0)
    }

    fn tables(&self) -> Vec<Titled> {
        let of_kernels = |(test, kernels): &(Test, Vec<KernelReport>)| {
            let (header, rows) = kernels_table(kernels);
            (Some(kernels_title(test)), header, rows)
        };
        if self.kernels.is_empty() {
            let (header, rows) = tests_table(&self.tests);
            return vec![(None, header, rows)];
        }
        self.kernels.iter().map(of_kernels).collect()
    }
}

/// Header and rows.
type Table = (Vec<&'static str>, Vec<Vec<String>>);

/// A title, header and rows.
type Titled = (Option<String>, Vec<&'static str>, Vec<Vec<String>>);

fn kernels_title(test: &Test) -> String {
    match test.work {
        Work::Prefill(tokens) => format!("{}: a prompt of {tokens} tokens after {} others", test.name(), test.depth),
        Work::Decode(_) | Work::Sample(_) => format!("tg1@d{}: a decode step after {} tokens", test.depth, test.depth.max(1)),
    }
}

fn kernels_table(kernels: &[KernelReport]) -> Table {
    let header = vec!["kernel", "dispatches", "us", "share", "GB/s", "GFLOP/s", "of roof"];
    let some = |figure: f64| if figure > 0.0 { format!("{figure:.2}") } else { String::new() };
    let row = |kernel: &KernelReport| {
        vec![
            kernel.kernel.to_owned(),
            count(kernel.dispatches),
            format!("{:.1}", kernel.seconds * 1e6),
            percent(kernel.share),
            some(kernel.gb_s),
            some(kernel.gflop_s),
            if kernel.roof_share > 0.0 { percent(kernel.roof_share) } else { String::new() },
        ]
    };
    let total: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let mut rows: Vec<_> = kernels.iter().map(row).collect();
    let dispatches = kernels.iter().map(|kernel| kernel.dispatches).sum();
    rows.push(vec!["all".to_owned(), count(dispatches), format!("{:.1}", total * 1e6)]);
    (header, rows)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn tests_table(reports: &[TestReport]) -> Table {
    let header = vec![
        "test",
        "tokens/s",
        "+-",
        "dispatches/token",
        "submits/token",
        "readbacks/token",
        "weights/token",
        "of read roof",
        "of multiply-add roof",
    ];
    let share = |share: Option<f64>| share.map_or_else(String::new, percent);
    let row = |report: &TestReport| {
        vec![
            report.test.name(),
            format!("{:.2}", report.tokens_per_second()),
            format!("{:.2}", report.stddev()),
            count(report.dispatches_per_token),
            count(report.submits_per_token),
            count(report.readbacks_per_token),
            human_bytes(report.weight_bytes_per_token),
            share(report.read_roof_share),
            share(report.fma_roof_share),
        ]
    };
    (header, reports.iter().map(row).collect())
}

/// A whole number without its point.
fn count(count: f64) -> String {
    if count.fract() == 0.0 { format!("{count}") } else { format!("{count:.3}") }
}
