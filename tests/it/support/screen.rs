//! What a terminal shows, by what was written to it: as much of one as progress bars use.

/// A screen as wide as a terminal, and as high as it takes.
pub(crate) struct Screen {
    width: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Lines that went on in the next one, as they were then.
    pub(crate) wrapped: Vec<String>,
    /// All that was written, without what moves the cursor and colours.
    pub(crate) ever: String,
}

impl Screen {
    pub(crate) fn of(output: &str, width: usize) -> Self {
        let mut screen =
            Self { width, lines: vec![Vec::new()], row: 0, column: 0, wrapped: Vec::new(), ever: String::new() };
        let mut rest = output.chars();
        while let Some(next) = rest.next() {
            match next {
                '\r' => screen.column = 0,
                '\n' => screen.down(1),
                '\u{1b}' => {
                    assert_eq!(rest.next(), Some('['), "another sequence than those of a progress bar");
                    let (mut number, mut end) = (String::new(), rest.next().expect("a whole sequence"));
                    while !('@'..='~').contains(&end) {
                        number.push(end);
                        end = rest.next().expect("a whole sequence");
                    }
                    screen.sequence(end, &number);
                }
                shown => screen.put(shown),
            }
        }
        screen
    }

    /// What is on it now.
    pub(crate) fn text(&self) -> String {
        let line = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned();
        self.lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn down(&mut self, by: usize) {
        self.row += by;
        self.lines.resize(self.lines.len().max(self.row + 1), Vec::new());
    }

    fn put(&mut self, shown: char) {
        self.ever.push(shown);
        if self.column == self.width {
            self.wrapped.push(self.lines[self.row].iter().collect());
            self.column = 0;
            self.down(1);
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = shown;
        self.column += 1;
    }

    fn sequence(&mut self, end: char, number: &str) {
        let by = number.parse().unwrap_or(1);
        match (end, number) {
            ('A', _) => self.row = self.row.saturating_sub(by),
            ('B', _) => self.down(by),
            ('C', _) => self.column = (self.column + by).min(self.width),
            ('D', _) => self.column = self.column.saturating_sub(by),
            ('G', _) => self.column = by - 1,
            ('K', "2") => self.lines[self.row].clear(),
            ('K', "" | "0") => self.lines[self.row].truncate(self.column),
            ('J', "" | "0") => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            ('m' | 'h' | 'l', _) => {}
            other => panic!("a sequence of no progress bar: {other:?}"),
        }
    }
}
