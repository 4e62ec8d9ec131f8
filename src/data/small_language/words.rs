//! The words of the small language and their numbers.
//!
//! Words of a class follow one another; within a class the first are the most frequent: the word number `k` (from 0) has the
//! weight `840 / (k + 1)`, rounded down (Zipf's law), towns and people apart, which are all alike.

/// Towns that people are from.
pub(super) const TOWNS: usize = 64;

const MARKS: [&str; 4] = [".", "+", "=", "from"];
const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
/// The first goes with either number, two with one, two with several.
const DETERMINERS: [&str; 5] = ["the", "a", "this", "some", "these"];
const ADJECTIVES: [&str; 20] = [
    "old", "young", "small", "big", "red", "white", "quiet", "happy", "clever", "brave", "tired", "kind", "proud",
    "gentle", "strange", "wise", "lazy", "shy", "lucky", "bold",
];
/// Who acts: one of them and several.
const BEINGS: [[&str; 2]; 24] = [
    ["dog", "dogs"],
    ["cat", "cats"],
    ["child", "children"],
    ["woman", "women"],
    ["man", "men"],
    ["bird", "birds"],
    ["horse", "horses"],
    ["farmer", "farmers"],
    ["doctor", "doctors"],
    ["baker", "bakers"],
    ["wolf", "wolves"],
    ["mouse", "mice"],
    ["sailor", "sailors"],
    ["queen", "queens"],
    ["king", "kings"],
    ["teacher", "teachers"],
    ["fox", "foxes"],
    ["bear", "bears"],
    ["hunter", "hunters"],
    ["smith", "smiths"],
    ["goose", "geese"],
    ["monk", "monks"],
    ["thief", "thieves"],
    ["giant", "giants"],
];
/// What is acted upon.
const THINGS: [[&str; 2]; 24] = [
    ["house", "houses"],
    ["tree", "trees"],
    ["book", "books"],
    ["boat", "boats"],
    ["stone", "stones"],
    ["apple", "apples"],
    ["river", "rivers"],
    ["knife", "knives"],
    ["door", "doors"],
    ["letter", "letters"],
    ["chair", "chairs"],
    ["bridge", "bridges"],
    ["wagon", "wagons"],
    ["flower", "flowers"],
    ["tower", "towers"],
    ["lamp", "lamps"],
    ["bell", "bells"],
    ["basket", "baskets"],
    ["coin", "coins"],
    ["wall", "walls"],
    ["leaf", "leaves"],
    ["key", "keys"],
    ["drum", "drums"],
    ["ring", "rings"],
];
/// Verbs without an object: of one who acts and of several.
const INTRANSITIVE: [[&str; 2]; 12] = [
    ["sleeps", "sleep"],
    ["sings", "sing"],
    ["runs", "run"],
    ["waits", "wait"],
    ["laughs", "laugh"],
    ["walks", "walk"],
    ["dreams", "dream"],
    ["smiles", "smile"],
    ["works", "work"],
    ["dances", "dance"],
    ["hides", "hide"],
    ["listens", "listen"],
];
/// Verbs with an object.
const TRANSITIVE: [[&str; 2]; 16] = [
    ["sees", "see"],
    ["finds", "find"],
    ["takes", "take"],
    ["likes", "like"],
    ["holds", "hold"],
    ["brings", "bring"],
    ["paints", "paint"],
    ["loses", "lose"],
    ["builds", "build"],
    ["breaks", "break"],
    ["sells", "sell"],
    ["guards", "guard"],
    ["watches", "watch"],
    ["follows", "follow"],
    ["carries", "carry"],
    ["cleans", "clean"],
];
/// Names are these, one for each digit of a number to base 16, with an ending.
const SYLLABLES: [&str; 16] =
    ["ba", "do", "fe", "gi", "ha", "ko", "la", "mi", "no", "pu", "ra", "si", "ta", "ve", "wo", "zu"];

/// A class of words: their numbers and how often each is drawn.
#[derive(Debug, Clone)]
pub(super) struct Class {
    first: u32,
    /// Sums of the weights up to and including each word.
    sums: Vec<u64>,
}

impl Class {
    fn new(first: usize, weights: impl Iterator<Item = u64>) -> Self {
        let sums = weights.scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { first: first as u32, sums: sums.collect() }
    }

    /// Sum of all weights.
    pub(super) fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// The word on which a number below [`Class::total`] falls, with its probability.
    pub(super) fn at(&self, ticket: u64) -> (u32, f64) {
        let place = self.sums.partition_point(|&sum| sum <= ticket);
        (self.first + place as u32, self.probability(place))
    }

    fn probability(&self, place: usize) -> f64 {
        let before = place.checked_sub(1).map_or(0, |before| self.sums[before]);
        (self.sums[place] - before) as f64 / self.total() as f64
    }

    /// Mean of `-ln p` over the words.
    pub(super) fn entropy(&self) -> f64 {
        (0..self.sums.len()).map(|place| -self.probability(place) * self.probability(place).ln()).sum()
    }
}

/// Zipf's weights in whole numbers.
fn zipf(words: usize) -> impl Iterator<Item = u64> {
    (1..=words as u64).map(|rank| 840 / rank)
}

/// All words by class. Where a class has two, the first is of one, the second of several.
#[derive(Debug, Clone)]
pub(super) struct Lexicon {
    words: Vec<String>,
    pub adjectives: Class,
    pub beings: [Class; 2],
    pub things: [Class; 2],
    pub intransitive: [Class; 2],
    pub transitive: [Class; 2],
    people: usize,
    /// People with one given name, the last one's apart.
    families: usize,
    towns: u32,
    given: u32,
    family: u32,
}

/// The number of the new line that begins a paragraph.
pub(super) const NEW_LINE: u32 = 0;
/// Numbers of the marks.
pub(super) const STOP: u32 = 1;
pub(super) const PLUS: u32 = 2;
pub(super) const EQUALS: u32 = 3;
pub(super) const FROM: u32 = 4;
/// The number of the digit 0; the others follow.
pub(super) const ZERO: u32 = 5;
/// The number of the first determiner.
pub(super) const DETERMINER: u32 = 15;

impl Lexicon {
    pub(super) fn new(people: usize) -> Self {
        let mut words: Vec<String> = vec!["\n".into()];
        words.extend(MARKS.iter().chain(&DIGITS).chain(&DETERMINERS).map(|word| (*word).to_owned()));
        let add = |words: &mut Vec<String>, own: Vec<&str>| {
            let class = Class::new(words.len(), zipf(own.len()));
            words.extend(own.into_iter().map(str::to_owned));
            class
        };
        let pair = |words: &mut Vec<String>, own: &[[&'static str; 2]]| {
            [0, 1].map(|number| add(words, own.iter().map(|forms| forms[number]).collect()))
        };
        let adjectives = add(&mut words, ADJECTIVES.to_vec());
        let beings = pair(&mut words, &BEINGS);
        let things = pair(&mut words, &THINGS);
        let intransitive = pair(&mut words, &INTRANSITIVE);
        let transitive = pair(&mut words, &TRANSITIVE);
        let mut names = |count: usize, ending: &str| {
            let first = words.len() as u32;
            words.extend((0..count).map(|number| name(number, ending)));
            first
        };
        // Nearly as many family names as given names.
        let givens = (people as f64).sqrt().ceil() as usize;
        let families = people.div_ceil(givens);
        let (towns, given, family) = (names(TOWNS, "ham"), names(givens, "n"), names(families, "sen"));
        Self { words, adjectives, beings, things, intransitive, transitive, people, families, towns, given, family }
    }

    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether a word is written without a space before it.
    pub(super) fn stands_alone(&self, number: u32) -> bool {
        number == NEW_LINE || number == STOP
    }

    /// Given and family name of a person, each with its probability where all people are equally likely.
    pub(super) fn names(&self, person: usize) -> [(u32, f64); 2] {
        let given = person / self.families;
        let namesakes = self.families.min(self.people - given * self.families);
        [
            (self.given + given as u32, namesakes as f64 / self.people as f64),
            (self.family + (person % self.families) as u32, 1.0 / namesakes as f64),
        ]
    }

    /// Number of people.
    pub(super) fn people(&self) -> usize {
        self.people
    }

    /// A town's word.
    pub(super) fn town(&self, town: u8) -> u32 {
        self.towns + u32::from(town)
    }
}

/// The name of a number: at least two syllables and the ending, the first letter a capital.
fn name(number: usize, ending: &str) -> String {
    let mut text = String::new();
    let mut rest = number;
    loop {
        text.push_str(SYLLABLES[rest % SYLLABLES.len()]);
        rest /= SYLLABLES.len();
        if rest == 0 && text.len() >= 4 {
            break;
        }
    }
    text.push_str(ending);
    text[..1].to_uppercase() + &text[1..]
}
