"""Word lists of the generated tasks. Fixed and shipped: what a task asks does not depend on any tokenizer."""

# ruff: noqa: SIM905 - hundreds of quoted words would be harder to read and to check

COMMON = tuple(
    """
account acid action actor advice agent album anger angle animal answer apple army arrow artist atom aunt author autumn
baby badge baker ball band bank barn base basin basket beach beam bear beauty bell belt bench bird birth blade blanket
blood board boat bonus book border bottle bottom bowl brain branch brass bread breath brick bridge brother brush
bubble bucket budget bullet burden butter button cabin cable cake camera camp canal candle candy canyon captain carbon
card career cargo carpet castle cattle cell cement chain chair chalk chamber chapter charm chart cheese cherry chest
chicken child church circle city clay client climate clock cloth cloud coach coast coat coffee coin collar college
column comedy copper corn corner cotton couch council country couple cousin cover crane cream credit crew crime crown
cube culture curtain curve dairy damage dance danger dawn debate debt deck deer degree delay desert desk detail device
diamond diet dinner dirt disk doctor dollar door doubt dragon drama dream dress driver drum duck dust duty eagle earth
east echo edge editor effect effort elbow empire energy engine error essay estate event exam exit expert fabric face
factor factory farm farmer father feast fence fever field figure film filter finger fire fish flag flame flight flood
floor flour flower fluid foam folder food forest fork form fortune frame friend fruit fuel funeral future galaxy game
garage garden garlic gate gear ghost giant gift girl glass globe glory glove goal grace grain grass gravity grid group
guard guest guide guitar habit hair hammer hand harbor heart heat heaven height helmet hero hill history holiday home
honey hook horse hotel house humor hunter idea image impact inch income index injury insect island item ivory jacket
jazz jewel joke journal journey judge juice jungle jury justice kettle king kitchen knee knife knight label ladder
lady lake lamp land laser lawyer layer leader leaf league leather lecture legend lemon lens lesson letter level
library lion liquid liver lobby logic lord lunch lung machine magic magnet mail manager marble margin market master
match meal medal member memory menu metal meter middle milk mind mine mirror mission model moment money monitor monkey
month moon mother motor mouse mouth movie muscle museum music name nation nature neck needle nerve network night noise
north nose note novel number nurse ocean office onion opera option orange orbit orchard organ outcome outlet oven
owner oxygen paint palace panel paper parade parent park party path patient peace pearl pencil people pepper phone
photo piano picture pilot pipe planet plant plate player pocket poem poet police pony pool port potato pound powder
prayer price prince prison prize profit project pulse pump queen quote rabbit radar radio rain ranch range record
region relief report rescue resort rest result rhythm rice rifle ring river road robot rock roof room root rope rose
route rubber ruler saddle safety sail salad salt sand sauce scale scene school science screen script season seat seed
senate series server shadow shape sheep sheet shelf shell shield ship shirt shoe shop shore signal silk silver singer
sister skill skin sleep slope smile smoke snake snow soap soccer soil soldier song soul sound soup source south space
spider spine spirit spoon sport spring square stable stage stamp star statue steam steel stem stone store storm story
stove stream street student studio style sugar suit summer surface switch sword symbol system table tail talent tank
target taste teacher team temple tennis tent theater theory thread throat throne ticket tide tiger title toast tobacco
tongue tool tooth tower town track trade traffic trail train treaty tree trial tribe trick trophy truck trunk tube
tunnel turkey turtle twin uncle union unit valley value vehicle vendor vessel victim video village violin virus vision
voice volcano volume voter wagon waist wall water wave wealth weapon weather wedding weight wheel whistle wind window
wine wing winter wire witness wolf woman wood wool word worker world wound writer yard year zone
""".split()
)
"""Common English nouns of four to seven letters; with a leading space one token each in most English vocabularies."""

COLORS = ("red", "blue", "green", "gold", "black", "white", "pink", "gray")

CLASSES = {
    "animal": tuple(
        "dog cat horse cow sheep lion tiger bear wolf rabbit monkey mouse deer goat pig snake elephant fox whale shark "
        "eagle chicken camel turtle donkey".split()
    ),
    "fruit": tuple(
        "apple banana grape peach pear cherry lemon plum mango melon berry strawberry lime fig apricot pineapple kiwi "
        "coconut blueberry raspberry papaya watermelon cranberry pomegranate nectarine".split()
    ),
    "color": tuple(
        "red blue green yellow purple pink black white brown gray violet gold silver cyan magenta crimson scarlet "
        "turquoise beige maroon indigo teal navy ivory lavender".split()
    ),
    "tool": tuple(
        "hammer saw drill wrench knife shovel axe screwdriver rake chisel pliers ladder needle scissors lathe brush "
        "spade crowbar mallet anvil clamp shears ruler hoe sickle".split()
    ),
}

HEADS = ("author", "dog", "manager", "pilot", "doctor", "singer")
ATTRACTORS = ("dog", "doctor", "river", "stone", "table", "horse", "chair", "train")
"""Of the agreement task: all take a plain ``s`` in the plural."""

NAMES = ("Tom", "Anna", "John", "Mary", "Sam", "Lucy", "Paul", "Emma", "Jack", "Kate", "Mark", "Jane")

FILLERS = (
    "The grass in the park was cut this morning.",
    "A train leaves the station every hour.",
    "The bakery on the corner sells fresh bread.",
    "Some clouds moved slowly across the sky.",
    "The library is closed on the first day of the year.",
    "A small boat was tied to the wooden pier.",
    "The coffee in the kitchen is still warm.",
    "Rain fell on the roof for most of the night.",
    "The children walked home along the river.",
    "An old map was hanging on the wall.",
    "The market opens early in the summer.",
    "A cat was sleeping on the window sill.",
    "The road to the lake is narrow and quiet.",
    "Leaves covered the path behind the house.",
    "The concert started a few minutes late.",
    "A farmer sold apples beside the road.",
    "The museum has a new roof made of glass.",
    "Snow stayed on the hills until spring.",
    "The mail is brought to the office at noon.",
    "A bell could be heard from the village.",
    "The garden needs water twice a week.",
    "Two chairs stood in front of the fire.",
    "The bus was almost empty on the way back.",
    "A light wind came from the sea.",
    "The shop has paper, pencils and string.",
    "The bridge was painted green last year.",
    "A book lay open on the kitchen table.",
    "The team played in the rain and did not mind.",
    "Several birds were sitting on the fence.",
    "The soup is made with beans and onions.",
    "A clock in the hall makes a soft sound.",
    "The teacher wrote a long sentence on the board.",
    "Most of the windows face the street.",
    "The river is wide and slow near the town.",
    "A new cinema was built behind the school.",
    "The bread should rest before it is cut.",
    "Some visitors took pictures of the tower.",
    "The carpet in this room is dark blue.",
    "A truck brought wood for the winter.",
    "The lamp above the desk is quite bright.",
    "The path turns left after the old mill.",
    "A dog barked once and then was quiet.",
    "The tea was served in small white cups.",
    "The field behind the barn is planted with corn.",
    "The ferry crosses the bay in half an hour.",
    "A letter with two stamps arrived today.",
    "The hotel has rooms on four floors.",
    "The stones in the yard are smooth and flat.",
    "A painter was working on the front door.",
    "The evening air smelled of pine trees.",
)
"""Short sentences that have nothing to do with each other or with keys: the hay of the pass-key task."""

STOP_WORDS = frozenset(
    """
a about after all also an and any are as at be been before both but by can could do does each either every for from
had has have he her his how i if in into is it its just like may might more most must my no nor not of on one only
or other our out over same shall she should so some such than that the their them then there these they this those
through to too under until up upon use used very was we were what when where which while who will with within
without would you your
""".split()
)
"""Words of grammar rather than of meaning."""
